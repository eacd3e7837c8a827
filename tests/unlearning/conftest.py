"""What the tests of training share: short runs of tiny models, and slow independent losses."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.data.tokens import Encoder, Tokens
from wagle.mask.mask import Mask
from wagle.model.loading import load_model
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.weights import fingerprint, streamed_parts
from wagle.recipe.sections.training import Training
from wagle.unlearning.execution import TrainResult


@functools.cache
def encoder() -> Encoder:
    return Encoder(make_tokenizer())


@functools.cache
def tokens(name: str) -> tuple[Tokens, ...]:
    rows = {"forget": RECORDS, "retain": OTHERS}[name]
    return tuple(encoder().encode(wagle.read_records(rows, name=name)))


def unlearn(model: Any, **settings: Any) -> TrainResult:
    """Two short steps of grad_diff without stop rules, unless other settings are given."""
    more: dict[str, Any] = {"objective": "grad_diff", "stop_when": [], "retain": OTHERS}
    training: dict[str, Any] = {"max_steps": 2, "batch_size": 2, "learning_rate": 1e-2}
    for name, value in settings.items():
        (training if name in Training.model_fields else more)[name] = value
    retain = more.pop("retain")
    forget = more.pop("forget", RECORDS)
    return wagle.unlearn(model, encoder(), forget, retain, training=Training(**training), **more)


def sgd(rate: float = 1.0, **more: Any) -> dict[str, Any]:
    """Settings of plain gradient descent: a step shows its gradient."""
    return {"optimizer": "SGD", "learning_rate": rate, "max_grad_norm": 0.0, **more}


def mask_of(
    model: nn.Module,
    ratio: float = 0.3,
    *,
    seed: int = 0,
    among: Callable[[str], bool] = lambda _: True,
) -> Mask:
    """A random mask of the parameters whose names pass ``among``."""
    generator = torch.Generator().manual_seed(seed)
    levels = {
        name: (torch.rand(p.shape, generator=generator) < ratio * among(name)).to(torch.uint8)
        for name, p in model.named_parameters()
    }
    count = sum(int(level.sum()) for level in levels.values())
    size = sum(level.numel() for level in levels.values())
    metadata = {"model": fingerprint(model), "candidates": size}
    return Mask.from_levels(levels, ratios=[ratio], counts=[count], metadata=metadata)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().float().reshape(-1) for p in model.parameters()])


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether all weights are bit for bit what they were."""
    return all(bits_equal(p.detach(), before[name]) for name, p in model.named_parameters())


def bits_equal(one: Tensor, other: Tensor) -> bool:
    kind = {4: torch.int32, 2: torch.int16}[one.element_size()]
    return torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))


class Killed(Exception):
    """What ends a run from outside."""


def kill_at(step: int) -> Callable[[dict[str, Any]], None]:
    """An ``on_step`` that ends the run before step ``step`` is written to a checkpoint."""

    def on_step(figures: dict[str, Any]) -> None:
        if figures["step"] == step:
            raise Killed

    return on_step


def slow_nll(model: nn.Module, records: Iterable[Tokens]) -> Tensor:
    """Mean answer NLL of every record, each alone and unpadded through the whole head."""
    found = []
    for record in records:
        ids = torch.tensor([record.ids])
        log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        places = [i for i, scored in enumerate(record.scored) if scored]
        found.append(-torch.stack([log_probs[i - 1, record.ids[i]] for i in places]).mean())
    return torch.stack(found)


def slow_gradient(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found: Sequence[Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(names, parameters, found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in pairs}


# ---------------------------------------------------------------------------------------------
# The engine ``stream``


@functools.cache
def folder_of(family: str) -> Path:
    """A tiny model of a family, saved; one for the whole session."""
    folder = Path(tempfile.mkdtemp(prefix="wagle-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_model(family).save_pretrained(folder)
    return folder


class Runs(NamedTuple):
    """The same run by two engines, and the weights that each ends with."""

    whole: TrainResult
    stream: TrainResult
    after_whole: dict[str, Tensor]
    after_stream: dict[str, Tensor]


def current(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a streamed model, with what lies over its blocks."""
    stream, found = stream_of(model), weights(model)
    for name, tensor in found.items():
        if tensor.is_meta:
            parts = list(streamed_parts(stream, name, tensor.dtype))
            found[name] = torch.cat(parts).view(tensor.shape)
    return found


def both(folder: Path, mask: Mask | None, **settings: Any) -> Runs:
    """Train a model in memory, and the same one with its blocks on disk."""
    whole, streamed = load_model(folder), open_streamed(folder)
    results = [unlearn(model, mask=mask, **settings) for model in (whole, streamed)]
    found = Runs(*results, weights(whole), current(streamed))
    stream_of(streamed).close()
    return found


def assert_equal_runs(runs: Runs, folder: Path, mask: Mask | None) -> None:
    """Losses and weights agree within 1e-5; what the mask does not select is what it was."""
    assert runs.stream.selected == runs.whole.selected
    assert runs.stream.changed > 0
    for one, other in zip(runs.stream.history, runs.whole.history, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == pytest.approx(other[name], rel=1e-5, abs=1e-5), name
    before = weights(load_model(folder))
    for name, value in runs.after_stream.items():
        # A bias of keys has gradient 0 but for rounding, which AdamW turns into steps.
        near = 1e-3 if name.endswith("k_proj.bias") else 1e-5
        torch.testing.assert_close(value, runs.after_whole[name], rtol=0, atol=near)
        if mask is not None:
            assert torch.equal(value[~mask[name]], before[name][~mask[name]])
