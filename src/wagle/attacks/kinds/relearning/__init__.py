"""Relearning: how quickly a few records bring back what should be forgotten.

A model that has forgotten is taught again for a few steps: records of the forget set (``exact``),
or others of the same format (``benign``), which cannot teach what is gone. Only the difference to
a model that never learned the forget set, attacked in the same way, is evidence (``gap``).

Sources: Fan et al. 2025, arXiv 2502.05374 (relearning on forget records); Hu et al. 2024,
arXiv 2406.13356 (benign records).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from wagle.attacks.kinds.relearning.curve import STEPS, check_budget, relearn
from wagle.attacks.kinds.relearning.picking import Picked, pick_benign, pick_exact
from wagle.attacks.parts import at_most, flat
from wagle.attacks.shapes import Scene, Series, Trial
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.figures import Figure, Task
from wagle.evaluation.tasks.questions import qa
from wagle.system.errors import WagleError, nearest


def relearning(
    scene: Scene,
    *,
    records: str = "exact",
    share: float = 1.0,
    steps: Sequence[int] = STEPS,
    learning_rate: float | list[float] = 1e-5,
    batch_size: int = 4,
    lora: bool = False,
    limit: int = 64,
) -> Trial:
    """Teach the model some records for a few steps, and measure it along the way.

    Args:
        scene: its forget set is what should come back; benign records come from its retain set.
        records: ``exact``, from the forget set; ``benign``, the same number from the retain set; or
            the path of a data file, from which the same number is taught.
        share: the share of the forget records, by a fixed permutation: smaller shares are contained
            in larger ones.
        steps: the steps after which the model is measured, starting at 0.
        learning_rate: for AdamW, constant; a list gives one curve per rate, each starting from the
            same model. The literature uses 5e-6, 1e-5 and 5e-5.
        batch_size: records per step.
        lora: train an adapter instead of all weights (extra ``lora``); it needs a larger rate.
        limit: the most records to measure from the forget set, and likewise from those not taught.
    """
    rates = learning_rate if isinstance(learning_rate, list) else [learning_rate]
    if not rates or len(set(rates)) < len(rates):
        raise WagleError(f"learning_rate is {rates}; give one rate, or several that differ")
    for rate in rates:
        check_budget(steps, rate, batch_size, lora)
    forget = scene.need("forget", "relearning")
    picked = _taught(scene, records, share)
    sets = {"forget": forget, "held_out": picked.held_out}
    looked = {
        name: at_most(limit, some, scene.seed)
        for name, some in sets.items()
        if some and (name == "forget" or len(some) < len(forget))
    }
    task = qa(scene.way.encoder, sets=looked, generate=False, seed=scene.seed)
    plan = {"steps": steps, "batch_size": batch_size, "lora": lora}

    def trial(model: PreTrainedModel) -> Series:
        states: dict[str, dict[str, Figure]] = {}
        losses = {}
        for rate in rates:
            first = states.get("step 0")  # every rate starts from the same model
            seen, losses[repr(rate)] = _curve(
                model, scene, task, picked.records, first, **plan, learning_rate=rate
            )
            label = "" if len(rates) == 1 else f"{rate!r}, "
            for step, found in zip(steps, seen, strict=True):
                states[f"{label}step {step}" if step else "step 0"] = found
        told: Any = losses if len(rates) > 1 else losses[repr(rates[0])]
        return Series(states, "step 0", details={"taught": len(picked.records), "losses": told})

    return trial


def _curve(
    model: PreTrainedModel,
    scene: Scene,
    task: Task,
    records: Sequence[Record],
    first: dict[str, Figure] | None,
    **plan: Any,
) -> tuple[list[dict[str, Figure]], list[float]]:
    """The figures at every look at a model while it is taught, and the loss of every step.

    ``first`` is what the first look would find, if already known; ``plan`` holds the settings of
    ``relearn``.
    """
    way = replace(scene.way, cache=None)  # every look sees a different model
    seen: list[dict[str, Figure]] = []

    def look(live: nn.Module) -> dict[str, float]:
        assert isinstance(live, PreTrainedModel)
        known = None if seen else first
        seen.append(flat(way.ask(live, task)) if known is None else known)
        return {name: f.value for name, f in seen[-1].items() if f.value is not None}

    made = relearn(model, way.encoder, records, **plan, seed=scene.seed, evaluate=look)
    return seen, [*made.losses]


def _taught(scene: Scene, records: str, share: float) -> Picked:
    """The records that relearning teaches, and the forget records that it does not."""
    forget = scene.need("forget", "relearning")
    if records == "exact":
        return pick_exact(forget, share, seed=scene.seed)
    if records == "benign":
        kept = scene.need("retain", "relearning with benign records")
    elif records.startswith("demo:") or Path(records).exists():
        kept = read_records(records, name="benign", seed=scene.seed)
    else:
        hint = nearest(records, ("exact", "benign"))
        guess = f"did you mean {hint!r}? " if hint else ""
        raise WagleError(
            f"attack relearning: records is {records!r}, but there is no such file; {guess}write "
            "exact, benign, or the path of a data file"
        )
    return pick_benign(forget, kept, share, seed=scene.seed)
