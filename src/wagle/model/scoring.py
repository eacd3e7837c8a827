"""Log-probabilities of records, at their scored positions only, in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wagle.model.streaming.opening import each, is_streamed
from wagle.model.structure import (
    device_of,
    head_at,
    is_sharded,
    precision,
    to_device,
    without_dropout,
)
from wagle.system.processes import group

if TYPE_CHECKING:
    from transformers import DynamicCache

_ROWS = 16  # rows of logits widened to float32 at once
_SHARED = 8  # the fewest common first tokens of a batch that are run once, apart from the rest


class Scored(NamedTuple):
    """The figures of a batch of records that an objective or a metric sees.

    Attributes:
        nll_sum: (B,) float32, a record's summed answer NLL in nats.
        nll_mean: (B,) float32, its mean over the scored tokens.
        length: (B,) int64, its number of scored tokens.
        token_nll: (n,) float32, the NLL of every scored token, records one after the other.
        hit: (n,) bool, whether the arg-max token is correct (lowest id on ties).
    """

    nll_sum: Tensor
    nll_mean: Tensor
    length: Tensor
    token_nll: Tensor
    hit: Tensor

    def mean_per_record(self, values: Tensor) -> Tensor:
        """Means of per-token ``values`` (n,) over the tokens of each record: (B,)."""
        return sum_per_record(values, self.length) / self.length


def sum_per_record(values: Tensor, length: Tensor) -> Tensor:
    """Sums of ``values``, records one after the other, over the ``length`` (B,) of each: (B,)."""
    owner = torch.arange(len(length), device=length.device).repeat_interleave(length)
    return torch.zeros(len(length), device=values.device).index_add(0, owner, values)


class _TokenNLL(torch.autograd.Function):
    """Cross-entropy of (n, V) logits and whether the arg-max is correct, float32, row by row.

    The logits stay in their own dtype: with a large vocabulary, the plain functions would keep two
    whole float32 copies of them while all activations are alive.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for rows, right in zip(logits.split(_ROWS), target.split(_ROWS), strict=True):
            wide = rows.float()
            total = wide.logsumexp(-1)
            own = wide.gather(-1, right.unsqueeze(-1)).squeeze(-1)
            parts.append((total - own, wide.argmax(-1) == right, total))
        if not parts:
            return logits.new_zeros(0, dtype=torch.float32), target.bool()
        nll, hit, total = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(logits, target, total)
        ctx.mark_non_differentiable(hit)
        return nll, hit

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        logits, target, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the plain functions have one
            soft = logits.float().softmax(-1)
            right = F.one_hot(target, logits.shape[-1])
            return ((soft - right) * grad.unsqueeze(-1)).to(logits.dtype), None
        out = torch.empty_like(logits)
        parts = zip(*(t.split(_ROWS) for t in (logits, target, total, grad, out)), strict=True)
        for rows, right, norm, scale, into in parts:
            soft = (rows.float() - norm.unsqueeze(-1)).exp_()
            soft.scatter_add_(-1, right.unsqueeze(-1), soft.new_full((len(soft), 1), -1.0))
            into.copy_(soft.mul_(scale.unsqueeze(-1)))
        return out, None


def answer_nll(model: nn.Module, batch: Mapping[str, Any], *, whole: bool = False) -> Scored:
    """Score the records of a batch, reading the head at scored positions only.

    Args:
        model: any causal model, in any mode; gradients flow if they are enabled.
        batch: the output of ``collate``: ``input_ids``, ``attention_mask`` and ``position_ids``
            (B, T) int64 and ``scored`` (B, T) bool, with position 0 of a record never scored. With
            ``past_key_values``, the attention mask covers the tokens in that cache too.
        whole: run every record from its first token, even if all of them begin alike.

    Returns:
        The NLLs in float32, whatever the model's dtype.
    """
    return score(*answer_logits(model, batch, whole=whole), batch["scored"])


def answer_logits(
    model: nn.Module, batch: Mapping[str, Any], *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """The logits that predict the scored tokens of a batch, and those tokens.

    Args:
        model: as in ``answer_nll``.
        batch: as there; ``labels`` (n,) int64, if present, replace the scored tokens.
        whole: as there.

    Returns:
        (n, V) logits in the model's own precision and (n,) int64 tokens, records one after the
        other.
    """
    scored = batch["scored"]  # (B, T)
    keep = torch.zeros_like(scored)
    keep[:, :-1] = scored[:, 1:]  # a position is predicted by the one before it
    past, begun = batch.get("past_key_values"), 0
    if past is None and not whole and not torch.is_grad_enabled():
        begun = _shared_beginning(model, batch, keep)
        if begun:
            past = begin(model, batch["input_ids"][:1, :begun], len(scored))
    with head_at(model, keep[:, begun:]):
        output = model(
            input_ids=batch["input_ids"][:, begun:],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"][:, begun:],
            past_key_values=past,
            use_cache=past is not None,
        )
    target = batch["labels"] if "labels" in batch else batch["input_ids"][scored]
    return output.logits[0], target  # in the same record-major order


def begin(model: nn.Module, ids: Tensor, rows: int) -> DynamicCache:
    """Run once the tokens (1, n) that ``rows`` sequences begin with; returns their key/value cache.

    Gradients must be off: otherwise the weight gradients of all blocks would be held in memory
    until those of the beginning are done.
    """
    owner: Any = model
    cache = _empty_cache(model)
    owner.base_model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=torch.arange(ids.shape[1], device=ids.device).unsqueeze(0),
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(rows)
    return cache


def _empty_cache(model: nn.Module) -> DynamicCache:
    from transformers import DynamicCache

    owner: Any = model
    return DynamicCache(config=owner.config)


def keeps_all(model: nn.Module, cache: DynamicCache) -> bool:
    """Whether this is a ``transformers`` model whose cache keeps every token of every block."""
    from wagle.compat.transformers import DynamicLayer

    own = type(model).__module__.startswith("transformers.")
    return own and all(type(layer) is DynamicLayer for layer in cache.layers)


def _shared_beginning(model: nn.Module, batch: Mapping[str, Any], keep: Tensor) -> int:
    """How many tokens all records of a batch begin with; 0 if running them once does not pay."""
    owner: Any = model
    ids, real = batch["input_ids"], batch["attention_mask"]
    same = ((ids == ids[:1]) & real.bool() & ~keep).all(0)  # (T,)
    found = int(same.long().cumprod(0).sum())
    if len(ids) < 2 or found < _SHARED or not hasattr(owner, "base_model"):
        return 0
    if is_sharded(model) or is_streamed(model):  # weights are there only while all of it runs
        return 0
    recomputes = model.training and getattr(owner, "is_activation_checkpointing", False)
    return found if not recomputes and keeps_all(model, _empty_cache(model)) else 0


def score(logits: Tensor, target: Tensor, scored: Tensor) -> Scored:
    """The figures of ``answer_nll`` from logits (n, V), tokens (n,) and ``scored`` (B, T) bool."""
    with torch.autocast(scored.device.type, enabled=False):
        token_nll, hit = _TokenNLL.apply(logits, target)  # type: ignore[no-untyped-call]
        length = scored.sum(-1)
        total = sum_per_record(token_nll, length)
    return Scored(total, total / length, length, token_nll, hit)


def records_nll(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], count: int, dtype: str
) -> Scored:
    """Score many batches without gradients; the results are in record order.

    Several processes share the batches of a model that each of them holds whole.

    Args:
        model: the model; its mode is left alone, dropout is off.
        batches: collated batches whose ``index`` (B,) gives each record's position.
        count: the total number of records.
        dtype: the precision of the matrix products.

    Returns:
        ``Scored`` of all records; ``token_nll`` and ``hit`` in record order too.
    """
    own = list(batches) if is_sharded(model) else group.share(list(batches))
    parts: dict[int, tuple[Tensor, ...]] = {}
    for found in group.gather(group.agreed(partial(_parts, model, own, dtype))):
        parts |= found
    columns = list(zip(*(parts[i] for i in range(count)), strict=True))
    return Scored(*(torch.stack(c) for c in columns[:3]), *(torch.cat(c) for c in columns[3:]))


def _parts(
    model: nn.Module, batches: Sequence[Mapping[str, Any]], dtype: str
) -> dict[int, tuple[Tensor, ...]]:
    """The five figures of every record of some batches, by its position."""
    device = device_of(model)

    def once(batch: Mapping[str, Any]) -> dict[int, tuple[Tensor, ...]]:
        got = answer_nll(model, to_device(batch, device))
        pieces = zip(
            got.token_nll.cpu().split(got.length.tolist()),
            got.hit.cpu().split(got.length.tolist()),
            strict=True,
        )
        rows = (got.nll_sum.cpu(), got.nll_mean.cpu(), got.length.cpu())
        return {
            index: (*(column[row] for column in rows), *piece)
            for row, (index, piece) in enumerate(zip(batch["index"].tolist(), pieces, strict=True))
        }

    parts: dict[int, tuple[Tensor, ...]] = {}
    with torch.no_grad(), without_dropout(model), precision(device, dtype):
        for found in each(model, once, batches):
            parts |= found
    return parts
