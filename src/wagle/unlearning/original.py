"""The original model: what it says of the records, computed once, before training.

Scores, whole distributions and activations of the original model are kept, where a folder is given,
under a key of model, records and precision; a file of another key is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wagle.data.batches import token_batches
from wagle.data.tokens import Tokens
from wagle.errors import WagleError, choose
from wagle.files import load_checked, save_checked
from wagle.model import (
    Scored,
    answer_logits,
    check_device,
    find_blocks,
    precision,
    records_nll,
    to_device,
    without_dropout,
)
from wagle.unlearning.objectives.shapes import Hidden
from wagle.weights import fingerprint

FORMAT = "wagle-reference/1"
EVAL_TOKENS = 2048  # padded tokens per forward pass without gradients
FULL = ("auto", "copy", "adapter", "topk")

# ---------------------------------------------------------------------------------------------
# The original model


@dataclass(frozen=True)
class Original:
    """How the original model is asked for whole distributions.

    Attributes:
        mode: ``copy`` (a frozen copy of the model), ``adapter`` (the model with its LoRA adapter
            off) or ``topk`` (the K largest log-probabilities of every position, computed once).
        k: the K of ``topk``.
    """

    mode: str = "copy"
    k: int = 100


def choose_original(model: nn.Module, mode: str, k: int) -> Original:
    """Resolve ``auto``: the adapter where the model has a fresh one, else a frozen copy."""
    has_adapter = hasattr(model, "disable_adapter")
    if k < 1:
        raise WagleError(f"full_reference_k is {k}; give a number of tokens, at least 1")
    if mode == "auto":
        trained = any(p.any() for n, p in model.named_parameters() if ".lora_B." in n)
        return Original("adapter" if has_adapter and not trained else "copy", k)
    choose(dict.fromkeys(FULL), mode, "full_reference")
    if mode == "adapter" and not has_adapter:
        raise WagleError("full_reference is adapter, but the model has no LoRA adapter; use copy")
    return Original(mode, k)


def reference_key(
    model: nn.Module, tokens: Sequence[Tokens], dtype: str, **more: Any
) -> dict[str, Any]:
    """What a cached reference depends on: the model, the records as tokens, the precision."""
    records = tokens_digest(tokens)
    return {"model": fingerprint(model), "records": records, "precision": dtype, **more}


def tokens_digest(tokens: Sequence[Tokens]) -> str:
    """64 hex digits that name what is scored of these records; for private files only."""
    digest = hashlib.sha256()
    for t in tokens:
        digest.update(json.dumps([t.ids, t.scored, t.labels]).encode())
    return digest.hexdigest()


def _cached(
    folder: Path | None, name: str, key: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What ``make`` gives, read from the folder if it is there for the same key."""
    if folder is None:
        return make()
    path = folder / f"{name}.safetensors"
    if path.exists():
        stored, metadata = load_checked(path, "reference", FORMAT)
        differ = [k for k in key if metadata["key"].get(k) != key[k]]
        if differ:
            raise WagleError(
                f"the cached reference {path} is of another {' and '.join(differ)}; delete it"
            )
        return stored
    made = make()
    save_checked(path, made, {"key": dict(key)}, FORMAT, private=True)
    return made


def reference_scores(
    model: nn.Module, name: str, tokens: Sequence[Tokens], dtype: str, folder: Path | None
) -> Scored:
    """The NLLs of a set under the original model, which ``model`` still is."""

    def make() -> dict[str, Tensor]:
        batches = token_batches(tokens, EVAL_TOKENS)
        return records_nll(model, batches, len(tokens), dtype)._asdict()

    key = reference_key(model, tokens, dtype) if folder else {}
    return Scored(**_cached(folder, name, key, make))


def _top(logits: Tensor, target: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K largest log-probabilities of (n, V) logits, the true token's among them, and the rest."""
    log_probs = logits.float().log_softmax(-1)
    k = min(k, log_probs.shape[-1] - 1)
    values, tokens = log_probs.topk(k, -1)
    missing = ~(tokens == target.unsqueeze(-1)).any(-1)
    tokens[missing, -1] = target[missing]
    values = log_probs.gather(-1, tokens)
    tail = log_probs.scatter(-1, tokens, -torch.inf).logsumexp(-1)
    return values, tokens.int(), tail


def top_distributions(
    model: nn.Module, name: str, tokens: Sequence[Tokens], dtype: str, k: int, folder: Path | None
) -> dict[str, Tensor]:
    """The top-K cache of a set: ``log_probs``, ``tokens``, ``tail``, record after record."""

    def make() -> dict[str, Tensor]:
        parts: dict[int, tuple[Tensor, ...]] = {}
        device = check_device(model)
        with torch.no_grad(), without_dropout(model), precision(device, dtype):
            for batch in token_batches(tokens, EVAL_TOKENS):
                here = to_device(batch, device)
                logits, target = answer_logits(model, here)
                sizes = batch["scored"].sum(-1).tolist()
                found = zip(*(x.cpu().split(sizes) for x in _top(logits, target, k)), strict=True)
                parts.update(zip(batch["index"].tolist(), found, strict=True))
        columns = zip(*(parts[i] for i in range(len(tokens))), strict=True)
        names = ("log_probs", "tokens", "tail")
        return {n: torch.cat(column) for n, column in zip(names, columns, strict=True)}

    key = reference_key(model, tokens, dtype, k=k) if folder else {}
    return _cached(folder, f"{name}-top", key, make)


# ---------------------------------------------------------------------------------------------
# Activations


class _Enough(Exception):
    """Ends a forward pass after the block that was wanted."""


@contextmanager
def _watching(model: nn.Module, layer: int, found: list[Tensor]) -> Iterator[None]:
    """Keep what comes out of block ``layer``; the pass ends there, by ``_Enough``."""
    _, blocks = find_blocks(model)  # type: ignore[arg-type]

    def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Enough

    def leaving(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    if layer + 1 < len(blocks):
        handle = blocks[layer + 1].register_forward_pre_hook(entering, with_kwargs=True)
    else:  # nothing follows but the norm: let the pass end by itself
        handle = blocks[layer].register_forward_hook(leaving)
    try:
        yield
    finally:
        handle.remove()


def hidden(model: nn.Module, batch: Mapping[str, Any], layer: int) -> Hidden:
    """What comes out of block ``layer`` at the real positions of a batch; later blocks do not run."""
    found: list[Tensor] = []
    with _watching(model, layer, found), suppress(_Enough):
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
        )
    real = batch["attention_mask"].bool()
    return Hidden(found[0][real].float(), real.sum(-1))


def check_layer(model: nn.Module, layer: Any) -> None:
    """Refuse a block that is not there."""
    _, blocks = find_blocks(model)  # type: ignore[arg-type]
    if not isinstance(layer, int) or not 0 <= layer < len(blocks):
        raise WagleError(
            f"layer is {layer}; the model has the blocks 0 to {len(blocks) - 1}, choose one of them"
        )


def original_hidden(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    layer: int,
    dtype: str,
    folder: Path | None,
) -> dict[str, Tensor]:
    """What comes out of a block of the original model: ``states`` (m, d), record after record."""

    def make() -> dict[str, Tensor]:
        parts: dict[int, Tensor] = {}
        device = check_device(model)
        with torch.no_grad(), without_dropout(model), precision(device, dtype):
            for batch in token_batches(tokens, EVAL_TOKENS):
                got = hidden(model, to_device(batch, device), layer)
                pieces = got.states.cpu().split(got.length.tolist())
                parts.update(zip(batch["index"].tolist(), pieces, strict=True))
        return {"states": torch.cat([parts[i] for i in range(len(tokens))])}

    key = reference_key(model, tokens, dtype, layer=layer) if folder else {}
    return _cached(folder, f"{name}-hidden", key, make)
