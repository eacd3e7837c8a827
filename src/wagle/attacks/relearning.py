"""Relearning: how soon a few records bring back what was to be forgotten.

A model that has forgotten is taught again for a few steps: records of the forget set (``exact``),
or others of the same format (``benign``), which cannot teach what is gone. Only the difference to
a model that never learned the forget set, attacked in the same way, is evidence (``gap``).

Sources: Fan et al. 2025, arXiv 2502.05374 (relearning on forget records); Hu et al. 2024,
arXiv 2406.13356 (benign records).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wagle.data.draws import subset
from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Record, Source
from wagle.data.tokens import Encoder
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.system.memory import Spill
from wagle.unlearning.lora import add_lora
from wagle.unlearning.teaching import finetune

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = (0, 1, 2, 5, 10, 20, 50, 100)
SMALLEST = 0.02  # of what was forgotten, below which no share of it can be told

# ---------------------------------------------------------------------------------------------
# Which records


class Picked(NamedTuple):
    """The records of an attack.

    Attributes:
        records: what is taught, in the order of its set.
        held_out: the forget records that are not, and no exact repeat of them is: what comes back
            there was not just told.
    """

    records: list[Record]
    held_out: list[Record]


def pick_exact(forget: Source, share: float, *, seed: int = 0) -> Picked:
    """Take the first records of a fixed permutation of the forget set.

    Args:
        forget: the records that were forgotten.
        share: of them, 0 < share <= 1; at least one record. Smaller shares are contained in larger
            ones.
        seed: the permutation is a function of (seed, record id).
    """
    gone = read_records(forget, name="forget", seed=seed)
    picked = _draw(gone, _count(len(gone), share), seed)
    told = {record.content_id for record in picked}
    return Picked(picked, [record for record in gone if record.content_id not in told])


def pick_benign(forget: Source, other: Source, share: float, *, seed: int = 0) -> Picked:
    """Take as many records from another set as ``pick_exact`` would from the forget set.

    Args:
        forget: the records that were forgotten; all of them are held out.
        other: records of the same format, retain or unrelated.
        share: as in ``pick_exact``, of the forget records.
        seed: the draw is a function of (seed, record id).

    Raises:
        WagleError: the sets share a record, or ``other`` has too few.
    """
    gone = read_records(forget, name="forget", seed=seed)
    kept = read_records(other, name="benign", seed=seed)
    check_disjoint(gone, kept)
    count = _count(len(gone), share)
    if count > len(kept):
        raise WagleError(
            f"a share of {share} of {len(gone)} forget records asks for {count} benign ones, and "
            f"there are {len(kept)}; give more, or lower the share"
        )
    return Picked(_draw(kept, count, seed), gone)


def _count(records: int, share: float) -> int:
    if not 0 < share <= 1:
        raise WagleError(f"share is {share}; give a share of the forget records, 0 < share <= 1")
    return max(1, math.floor(Fraction(str(share)) * records))


def _draw(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    return [records[i] for i in subset(seed, "relearning", [r.id for r in records], count)]


# ---------------------------------------------------------------------------------------------
# The curve


@dataclass(frozen=True)
class Curve:
    """What a relearned model gave, step by step.

    Attributes:
        points: the figures after each step that was asked for, from step 0, the model before.
        losses: per step, from the first, the mean NLL in nats of the records it was taught, before
            that step.
        changed: how many weights (with LoRA: of the adapter) differed at the end.
    """

    points: Mapping[int, Mapping[str, float]]
    losses: Sequence[float]
    changed: int

    def rise(self, figure: str) -> dict[int, float]:
        """By how much a figure stands above what it was at step 0, for every step."""
        if figure not in self.points[0]:
            raise WagleError(
                f"the curve has no figure {figure!r} (it has {', '.join(sorted(self.points[0]))})"
            )
        return {step: found[figure] - self.points[0][figure] for step, found in self.points.items()}


def relearn(
    model: PreTrainedModel,
    encoder: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    *,
    steps: Sequence[int] = STEPS,
    learning_rate: float = 1e-5,
    batch_size: int = 4,
    lora: bool = False,
    seed: int = 0,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
) -> Curve:
    """Teach a model records and look at it on the way; afterwards it is what it was, bit for bit.

    AdamW without weight decay and without a mask, at a constant rate, so that a point of the curve
    does not depend on the steps that follow. No copy of the model is in memory: the old values wait
    in a temporary file, and with LoRA the model's own weights do not move.

    Args:
        model: a live causal model without an adapter, its weights not quantised. While this runs it
            is changed in place; all its weights are trained, frozen ones too.
        encoder: an ``Encoder``, or a fast tokenizer; None for pre-tokenised records.
        records: what is taught, such as ``pick_exact(...).records``; repeated as often as the steps
            need. The order is a function of (seed, epoch, record id).
        steps: after how many steps the model is looked at: ascending from 0.
        learning_rate: > 0; for LoRA the same default is gentle.
        batch_size: records per step, >= 1.
        lora: train an adapter on all linear layers but the head, with the defaults of ``add_lora``.
        seed: of the order of the records, and of the adapter's start.
        evaluate: gives figures of the live model, which is in evaluation mode; it runs without
            gradients and cannot ask for any.

    Raises:
        WagleError: bad steps or settings, a model that cannot be trained, records that do not fit,
            a figure that is not finite.
        TrainingStopped: a loss that is not finite. The model is what it was then, too.
    """
    check_budget(steps, learning_rate, batch_size, lora)
    _check_plain(model)
    points = {0: _look(model, evaluate, 0)}
    if steps[-1] == 0:
        return Curve(points, [], 0)
    training = Training(
        max_steps=steps[-1], learning_rate=learning_rate, batch_size=batch_size, weight_decay=0.0
    )
    wanted = set(steps)

    def on_step(figures: Mapping[str, Any]) -> None:
        if figures["step"] in wanted:
            points[figures["step"]] = _look(model, evaluate, figures["step"])

    with _restored(model, values=not lora), _adapted(model, lora, seed) as trained:
        result = finetune(trained, encoder, records, seed=seed, on_step=on_step, training=training)
    return Curve(points, [step["retain_nll"] for step in result.history], result.changed)


def check_budget(
    steps: Sequence[int], learning_rate: float, batch_size: int, lora: bool = False
) -> None:
    """Refuse a budget that is none, and an adapter where its package is missing.

    Args:
        steps: ascending from 0.
        learning_rate: > 0, finite.
        batch_size: >= 1.
        lora: train an adapter.
    """
    if lora and importlib.util.find_spec("peft") is None:
        raise WagleError("relearning with lora needs peft: pip install 'wagle[lora]'")
    if not 0 < learning_rate < math.inf or batch_size < 1:
        raise WagleError(
            f"learning_rate is {learning_rate} and batch_size {batch_size}; give a rate above 0 and "
            "a size of at least 1"
        )
    ascending = all(one < other for one, other in pairwise(steps))
    if not steps or steps[0] != 0 or not ascending:
        raise WagleError(f"steps is {list(steps)}; begin with 0, the model before, and ascend")


def _check_plain(model: nn.Module) -> None:
    if hasattr(model, "disable_adapter"):
        raise WagleError("relearning needs a model without an adapter; merge it with merge_lora")
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or type(parameter.data) is not Tensor:
            raise WagleError(
                f"{name} is quantised, so it cannot be trained; relearn first, then quantise"
            )


def _look(
    model: nn.Module, evaluate: Callable[[nn.Module], Mapping[str, float]], step: int
) -> dict[str, float]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = dict(evaluate(model))
    finally:
        model.train(training)
    for name, value in found.items():
        if not math.isfinite(value):
            raise WagleError(
                f"{name} is {value} after {step} steps of relearning; lower the learning rate, or "
                "leave the figure out"
            )
    return found


@contextmanager
def _restored(model: nn.Module, *, values: bool) -> Iterator[None]:
    """Let every weight require a gradient; afterwards flags and ``values`` are those from before."""
    parameters = dict(model.named_parameters())
    flags = {name: p.requires_grad for name, p in parameters.items()}
    before = Spill(0)
    try:
        for name, parameter in parameters.items():
            if values:
                before[name] = parameter
            parameter.requires_grad_(True)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.grad = None
                parameter.requires_grad_(flags[name])
                if name in before:
                    parameter.copy_(before[name])
        before.close()


@contextmanager
def _adapted(model: PreTrainedModel, lora: bool, seed: int) -> Iterator[Any]:
    """What is trained: the model, or an adapter that is put into it for a while."""
    if not lora:
        yield model
        return
    adapted = add_lora(model, seed=seed)
    try:
        yield adapted
    finally:
        adapted.unload()


# ---------------------------------------------------------------------------------------------
# What it means


class Recovered(NamedTuple):
    """The share of what was forgotten that an attack brought back; of None, ``note`` says why."""

    value: float | None
    note: str | None


def recovered(unlearned: float, after: float, original: float) -> Recovered:
    """``(after - unlearned) / (original - unlearned)``: 0 is nothing, 1 is all.

    Args:
        unlearned: a figure of the unlearned model, one that falls as it forgets (a probability,
            ROUGE; of an NLL, its negative).
        after: the same after the attack.
        original: the same of the model before unlearning.

    Returns:
        No value where less than 0.02 was forgotten: the share would be of noise.
    """
    for name, value in (("unlearned", unlearned), ("after", after), ("original", original)):
        if not math.isfinite(value):
            raise WagleError(f"the figure {name} is {value}; evaluate that model again")
    forgotten = original - unlearned
    if forgotten < SMALLEST:
        return Recovered(
            None,
            f"undefined: the unlearned model lies {forgotten:.3g} below the original, under "
            f"{SMALLEST}, so there is nothing to bring back",
        )
    return Recovered((after - unlearned) / forgotten, None)


def gap(own_rise: float, retrained_rise: float) -> float:
    """How much more an attack brought back than it taught a model that never knew.

    Args:
        own_rise: by how much a figure of the unlearned model rose, such as ``Curve.rise`` has it.
        retrained_rise: the same of the reference, under the same attack: budget and seed too.
    """
    return own_rise - retrained_rise
