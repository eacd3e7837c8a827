"""The original model: its scores, distributions and activations, computed once, before training.

Only records that training will see are computed. Given a folder, the results are kept there under a
key of the model, the records and how they are computed; a file with another key is refused, and
records that a file lacks are added.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.compat.transformers import attention_of
from wagle.data.batches import token_batches
from wagle.data.tokens import Tokens
from wagle.model.scoring import answer_logits, answer_nll
from wagle.model.streaming.opening import each, open_streamed, stream_of
from wagle.model.structure import (
    device_of,
    is_sharded,
    precision,
    to_device,
    without_dropout,
)
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError, choose
from wagle.system.files.checked import load_checked, save_checked
from wagle.system.processes import group
from wagle.unlearning.reading.activations import states_of

FORMAT = "wagle-reference/2"
EVAL_TOKENS = 2048  # padded tokens per forward pass without gradients
FULL = ("auto", "copy", "adapter", "topk")

Columns: TypeAlias = dict[str, Tensor]
"""Several figures per position, (n, ...), of one record or of several concatenated."""
Ask: TypeAlias = Callable[[Mapping[str, Any]], tuple[Columns, Tensor]]
"""From a batch to what is kept from it and to how many positions each record has, (B,)."""

# ---------------------------------------------------------------------------------------------
# The original model


@dataclass(frozen=True)
class Original:
    """Where the original model's full distributions come from.

    Attributes:
        mode: ``copy`` (a frozen copy of the model), ``adapter`` (the model with its LoRA adapter
            off) or ``topk`` (the K largest log-probabilities of every position, computed once).
        k: the K of ``topk``.
    """

    mode: str = "copy"
    k: int = 100


def choose_original(model: nn.Module, mode: str, k: int) -> Original:
    """Resolve ``auto``: the adapter if the model has a fresh one, else a frozen copy."""
    has_adapter = hasattr(model, "disable_adapter")
    if k < 1:
        raise WagleError(f"full_reference_k is {k}; it must be at least 1 token")
    choose(dict.fromkeys(FULL), mode, "full_reference")
    if mode == "adapter" and not has_adapter:
        raise WagleError("full_reference is adapter, but the model has no LoRA adapter; use copy")
    if mode in ("copy", "topk"):
        return Original(mode, k)
    trained = any(p.any() for n, p in model.named_parameters() if ".lora_B." in n)
    if mode == "adapter" and trained:
        raise WagleError(
            "full_reference is adapter, but the adapter is already trained, so the model without it is "
            "not the original one; use copy or topk"
        )
    return Original("adapter" if has_adapter and not trained else "copy", k)


def frozen_copy(model: PreTrainedModel) -> nn.Module:
    """A copy of a model that stays as it is; that of a streamed one stays on disk too."""
    stream, owner = stream_of(model), cast(Any, model)
    if stream is None:
        copied: nn.Module = copy.deepcopy(model).requires_grad_(False)
        return copied.eval()
    own = type(model).__module__.startswith("transformers.")
    dtype = str(model.dtype).removeprefix("torch.")
    attention = attention_of(owner.config) or "auto"
    return open_streamed(stream.folder, dtype, attention, trust_remote_code=not own)


def reference_key(
    model: nn.Module, tokens: Sequence[Tokens], dtype: str, **more: Any
) -> dict[str, Any]:
    """What a cached reference depends on: the model, the records as tokens, how it is computed.

    The dtype is a separate part: the fingerprint ignores it, but the model's outputs depend on it.
    """
    owner: Any = model
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    return {
        "model": fingerprint(model),
        "records": tokens_digest(tokens),
        "precision": dtype,
        "dtype": " ".join(sorted(kinds)),
        "attention": attention_of(owner.config),
        **more,
    }


def tokens_digest(tokens: Sequence[Tokens]) -> str:
    """64 hex digits that identify what is scored in these records; for private files only."""
    digest = hashlib.sha256()
    for t in tokens:
        digest.update(json.dumps([t.ids, t.scored, t.labels]).encode())
    return digest.hexdigest()


def _kept(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    wanted: Sequence[int],
    dtype: str,
    folder: Path | None,
    ask: Ask,
    **more: Any,
) -> dict[int, Columns]:
    """What ``ask`` gives for every record in ``wanted``, read from the folder if it is there."""
    path = None if folder is None else folder / f"{name}.safetensors"
    key = {} if path is None else reference_key(model, tokens, dtype, **more)
    known = {} if path is None else _read(path, key)
    missing = [i for i in wanted if i not in known]
    if missing:
        own = missing if is_sharded(model) else group.share(missing)
        for found in group.gather(group.agreed(lambda: _ask_of(model, tokens, own, dtype, ask))):
            known |= found
        if path is not None and group.main_process():
            _write(path, key, known)
        group.wait()  # all have read the file before, and find it written after
    return {i: known[i] for i in wanted}


def _ask_of(
    model: nn.Module, tokens: Sequence[Tokens], which: Sequence[int], dtype: str, ask: Ask
) -> dict[int, Columns]:
    """What ``ask`` gives for each of these records, batch by batch, without gradients."""
    device = device_of(model)

    def once(batch: Mapping[str, Any]) -> dict[int, Columns]:
        columns, lengths = ask(to_device(batch, device))
        index = [which[i] for i in batch["index"].tolist()]
        return _apart({n: c.cpu() for n, c in columns.items()}, index, lengths.tolist())

    found: dict[int, Columns] = {}
    batches = token_batches([tokens[i] for i in which], EVAL_TOKENS)
    with torch.no_grad(), without_dropout(model), precision(device, dtype):
        for some in each(model, once, batches):
            found |= some
    return found


def _apart(columns: Columns, index: Sequence[int], lengths: list[int]) -> dict[int, Columns]:
    """Columns of concatenated records, split by record."""
    parts = {name: column.split(lengths) for name, column in columns.items()}
    return {i: {n: part[row] for n, part in parts.items()} for row, i in enumerate(index)}


def _read(path: Path, key: Mapping[str, Any]) -> dict[int, Columns]:
    """What a file holds for every record; nothing if there is no file."""
    if not path.exists():
        return {}
    stored, metadata = load_checked(path, "reference", FORMAT)
    differ = [k for k in key if metadata["key"].get(k) != key[k]]
    if differ:
        raise WagleError(
            f"the cached reference {path} is for another {' and '.join(differ)}; delete it"
        )
    index, lengths = stored.pop("index"), stored.pop("length")
    return _apart(stored, index.tolist(), lengths.tolist())


def _write(path: Path, key: Mapping[str, Any], known: Mapping[int, Columns]) -> None:
    first = next(iter(known.values()))
    lengths = [len(next(iter(columns.values()))) for columns in known.values()]
    joined = {name: torch.cat([columns[name] for columns in known.values()]) for name in first}
    places = {"index": torch.tensor(list(known)), "length": torch.tensor(lengths)}
    save_checked(path, {**joined, **places}, {"key": dict(key)}, FORMAT, private=True)


def reference_scores(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    wanted: Sequence[int],
    dtype: str,
    folder: Path | None,
) -> dict[int, Columns]:
    """``token_nll`` and ``hit`` of records under the original model, which ``model`` still is.

    Args:
        model: the model.
        name: of the set, and of its file.
        tokens: the set.
        wanted: the records in it that training will see.
        dtype: the precision of the matrix products.
        folder: where they are kept; None keeps nothing.

    Returns:
        Both by record, (n,) over its scored tokens.
    """

    def ask(batch: Mapping[str, Any]) -> tuple[Columns, Tensor]:
        got = answer_nll(model, batch)
        return {"token_nll": got.token_nll, "hit": got.hit}, got.length

    return _kept(model, name, tokens, wanted, dtype, folder, ask)


def _top(logits: Tensor, target: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K largest log-probabilities of (n, V) logits, with the true token's, and the rest."""
    log_probs = logits.float().log_softmax(-1)
    k = min(k, log_probs.shape[-1] - 1)
    values, tokens = log_probs.topk(k, -1)
    missing = ~(tokens == target.unsqueeze(-1)).any(-1)
    tokens[missing, -1] = target[missing]
    values = log_probs.gather(-1, tokens)
    tail = log_probs.scatter(-1, tokens, -torch.inf).logsumexp(-1)
    return values, tokens.int(), tail


def _halved(values: Tensor, wide: bool) -> Tensor:
    """The values in float16, unless they were computed in float32 or float16 cannot hold them.

    It rounds more finely than bfloat16, in which they were computed.
    """
    half = values if wide else values.half()
    return half if half.isfinite().all() else values


def top_distributions(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    wanted: Sequence[int],
    dtype: str,
    k: int,
    folder: Path | None,
) -> dict[int, Columns]:
    """The ``k`` largest log-probabilities: ``log_probs`` (n, K), ``tokens``, ``tail`` (n,).

    The arguments are those of ``reference_scores``.
    """

    def ask(batch: Mapping[str, Any]) -> tuple[Columns, Tensor]:
        logits, target = answer_logits(model, batch)
        values, found, tail = _top(logits, target, k)
        values = _halved(values, wide=logits.dtype == torch.float32)
        return {"log_probs": values, "tokens": found, "tail": tail}, batch["scored"].sum(-1)

    return _kept(model, f"{name}-top", tokens, wanted, dtype, folder, ask, k=k)


# ---------------------------------------------------------------------------------------------
# Activations


def original_hidden(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    wanted: Sequence[int],
    layer: int,
    dtype: str,
    folder: Path | None,
) -> dict[int, Columns]:
    """The output of a block of the original model: ``states`` (m, d) of every record.

    The arguments are those of ``reference_scores``.
    """

    def ask(batch: Mapping[str, Any]) -> tuple[Columns, Tensor]:
        states, length = states_of(model, batch, layer)
        if states.dtype == torch.float32:
            states = _halved(states, wide=dtype == "float32")
        return {"states": states}, length

    return _kept(model, f"{name}-hidden", tokens, wanted, dtype, folder, ask, layer=layer)
