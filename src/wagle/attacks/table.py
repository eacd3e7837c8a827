"""The attacks by name, with their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from wagle.attacks.probe import probe
from wagle.attacks.prompts import PLAIN, PREFIX, prompts
from wagle.attacks.quantization import WAYS, check_way, quantize
from wagle.attacks.relearning import (
    STEPS,
    Picked,
    check_budget,
    pick_benign,
    pick_exact,
    relearn,
)
from wagle.attacks.sampling import sampling
from wagle.attacks.shapes import ASIS, Scene, Series, Trial
from wagle.data.draws import subset
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.figures import HOLDOUT, Figure, Measured, Task
from wagle.evaluation.table import bind
from wagle.evaluation.tasks.questions import qa
from wagle.model.loading import empty_model
from wagle.system.errors import WagleError, choose, nearest
from wagle.system.memory import give_memory_back


def make_attack(name: str, scene: Scene, settings: Mapping[str, Any]) -> Trial:
    """Make an attack ready: what is missing or wrong is an error here, before any work.

    Args:
        name: in ATTACKS.
        scene: what it works with.
        settings: the keywords of its function.
    """
    return choose(ATTACKS, name, "attack")(scene, **check_settings(name, settings))


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an attack, checked against the keywords of its function."""
    return bind(choose(ATTACKS, name, "attack"), settings, f"attack {name}", hidden=("scene",))


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
    """Teach the model some records for a few steps, and look at it on the way.

    Args:
        scene: its forget set is what comes back; benign records are of its retain set.
        records: ``exact``, from the forget set; ``benign``, as many of the retain set; or a file of
            unrelated records, of which as many are taught.
        share: of the forget records.
        steps: after which the model is looked at, from 0.
        learning_rate: of AdamW, constant; of several, each starts from the same model.
        batch_size: records per step.
        lora: train an adapter instead of all weights.
        limit: the most records of the forget set, and of those not taught, that are looked at.
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
        name: _at_most(limit, some, scene.seed)
        for name, some in sets.items()
        if some and (name == "forget" or len(some) < len(forget))
    }
    task = qa(scene.way.encoder, sets=looked, generate=False, seed=scene.seed)
    way = replace(scene.way, cache=None)  # every look is at another model

    def curve(
        model: PreTrainedModel, rate: float, first: dict[str, Figure] | None
    ) -> tuple[list[dict[str, Figure]], list[float]]:
        seen: list[dict[str, Figure]] = []

        def look(live: nn.Module) -> dict[str, float]:
            assert isinstance(live, PreTrainedModel)
            known = None if seen else first  # every rate starts from the same model
            seen.append(_flat(way.ask(live, task)) if known is None else known)
            return {name: f.value for name, f in seen[-1].items() if f.value is not None}

        made = relearn(
            model,
            scene.way.encoder,
            picked.records,
            steps=steps,
            learning_rate=rate,
            batch_size=batch_size,
            lora=lora,
            seed=scene.seed,
            evaluate=look,
        )
        return seen, [*made.losses]

    def trial(model: PreTrainedModel) -> Series:
        states: dict[str, dict[str, Figure]] = {}
        losses = {}
        for rate in rates:
            seen, losses[repr(rate)] = curve(model, rate, states.get("step 0"))
            label = "" if len(rates) == 1 else f"{rate!r}, "
            for step, found in zip(steps, seen, strict=True):
                states[f"{label}step {step}" if step else "step 0"] = found
        told: Any = losses if len(rates) > 1 else losses[repr(rates[0])]
        return Series(states, "step 0", details={"taught": len(picked.records), "losses": told})

    return trial


def _taught(scene: Scene, records: str, share: float) -> Picked:
    """What relearning teaches, and the forget records that it does not."""
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
            f"attack relearning: records is {records!r}, and no such file is there; {guess}write "
            "exact, benign, or the path of a data file"
        )
    return pick_benign(forget, kept, share, seed=scene.seed)


def quantization(
    scene: Scene,
    *,
    methods: Sequence[str] = ("int8", "int4"),
    group_size: int | None = None,
    sets: list[str] | None = None,
    generate: bool = False,
) -> Trial:
    """Round the weights to few bits, and ask the same again.

    Args:
        scene: its sets.
        methods: int8, int4, nf4, fp4, gguf.
        group_size: of int4; null is 128 from a billion weights on, else 32.
        sets: which of them are asked about; null: all but the holdout set.
        generate: also ask for greedy answers.
    """
    if not methods:
        raise WagleError(f"methods is empty; name some of {', '.join(WAYS)}")
    shape = None if scene.model is None else empty_model(scene.model)
    for method in methods:
        check_way(method, group_size, shape)
    names = [name for name in scene.sets if name != HOLDOUT] if sets is None else sets
    asked = {name: scene.need(name, "quantization") for name in names}
    if not asked:
        raise WagleError("the attack quantization has no sets to ask about; name one in sets")
    task = qa(scene.way.encoder, sets=asked, generate=generate, seed=scene.seed)

    def trial(model: PreTrainedModel) -> Series:
        found = {ASIS: scene.way.ask(model, task)}
        for method in methods:
            smaller = quantize(model, method, group_size=group_size)
            found[method] = replace(scene.way, cache=None).ask(smaller, task)
            del smaller
            give_memory_back()
        return _series(found)

    return trial


def asked_otherwise(
    scene: Scene,
    *,
    attacks: list[str] | None = None,
    prefix: str = PREFIX,
    neighbours: int = 3,
    system_prompt: str | None = None,
    max_new_tokens: int = 128,
) -> Trial:
    """Ask for the forget records in other ways.

    Args:
        scene: its forget set, and its retain set for the neighbours in the context.
        attacks: paraphrase, prefix, context, format, system, decomposed, translation; null: all that
            there is the data for.
        prefix: the first words of an answer that are put into the model's mouth.
        neighbours: retain records in the context.
        system_prompt: what to ask under.
        max_new_tokens: the longest greedy answer.
    """
    task = prompts(
        scene.way.encoder,
        _questions(scene.need("forget", "prompts"), "prompts", ("qa",)),
        retain=[record for record in scene.sets.get("retain", ()) if record.kind == "qa"],
        attacks=attacks,
        prefix=prefix,
        neighbours=neighbours,
        system_prompt=system_prompt,
        max_new_tokens=max_new_tokens,
        seed=scene.seed,
    )
    return _of_task(scene, task, start=PLAIN)


def probed(
    scene: Scene,
    *,
    holdout: str | None = None,
    split: str | None = None,
    groups: dict[str, str] | None = None,
    readings: list[str] | None = None,
    limit: int = 200,
) -> Trial:
    """Read the forget set in the hidden states.

    Args:
        scene: its forget set.
        holdout: a file of records of the same kind that no model was trained on; null: the
            recipe's holdout set, or without one the general set.
        split: of ``holdout``, where that is a folder.
        groups: by the record's place (``forget[3]``, ``holdout[3]``; of the general set
            ``general[3]``), its author or document, which is never on both sides of a fold; null:
            every record is its own.
        readings: ``forget_or_holdout``, ``choice``; null: both, the second where forget records
            have wrong answers.
        limit: the most records of each side.
    """
    forget = _questions(scene.need("forget", "probe"), "probe")
    if holdout is None and HOLDOUT in scene.sets:
        others: Sequence[Record] = scene.sets[HOLDOUT]
    elif holdout is None:
        others = scene.need("general", "probe (or the setting holdout)")
    else:
        others = read_records(holdout, name="holdout", split=split, seed=scene.seed)
    task = probe(
        scene.way.encoder,
        _at_most(limit, forget, scene.seed),
        _at_most(limit, _questions(others, "probe"), scene.seed),
        groups=groups,
        readings=readings,
        seed=scene.seed,
    )
    return _of_task(scene, task)


def sampled(
    scene: Scene,
    *,
    samples: int = 32,
    temperature: float = 1.0,
    top_p: float = 1.0,
    threshold: float = 0.5,
    max_new_tokens: int = 128,
    limit: int = 64,
) -> Trial:
    """Ask every forget question many times at a temperature.

    Args:
        scene: its forget set.
        samples: answers per record.
        temperature: above 0.
        top_p: the share of the probability that is drawn from.
        threshold: the ROUGE-L recall from which on an answer leaks.
        max_new_tokens: the longest answer.
        limit: the most records.
    """
    forget = _questions(scene.need("forget", "sampling"), "sampling")
    task = sampling(
        scene.way.encoder,
        _at_most(limit, forget, scene.seed),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        threshold=threshold,
        max_new_tokens=max_new_tokens,
        seed=scene.seed,
    )
    return _of_task(scene, task)


ATTACKS: dict[str, Callable[..., Trial]] = {
    "relearning": relearning,
    "quantization": quantization,
    "prompts": asked_otherwise,
    "probe": probed,
    "sampling": sampled,
}


def _questions(
    records: Sequence[Record], attack: str, kinds: Sequence[str] = ("qa", "chat")
) -> list[Record]:
    """Those of some records that ask something."""
    found = [record for record in records if record.kind in kinds]
    if not found:
        raise WagleError(
            f"the attack {attack} needs questions with answers; {records[0].place} is of the kind "
            f"{records[0].kind!r}, and so are the others: leave it out"
        )
    return found


def _at_most(limit: int, records: Sequence[Record], seed: int) -> list[Record]:
    """Some of the records, drawn by (seed, record), under their own places."""
    if limit < 1:
        raise WagleError(f"limit is {limit}; look at one record at least")
    if limit >= len(records):
        return list(records)
    return [records[i] for i in subset(seed, "take", [r.id for r in records], limit)]


def _flat(found: Measured) -> dict[str, Figure]:
    return {f"{name}.{m}": f for name, figures in found.figures.items() for m, f in figures.items()}


def _series(found: Mapping[str, Measured]) -> Series:
    texts = {
        f"{state}, {name}": said for state, m in found.items() for name, said in m.texts.items()
    }
    return Series({state: _flat(m) for state, m in found.items()}, ASIS, texts)


def _of_task(scene: Scene, task: Task, start: str | None = None) -> Trial:
    """A trial that only asks: its states are the sets of the task."""

    def trial(model: PreTrainedModel) -> Series:
        found = scene.way.ask(model, task)
        return Series(found.figures, start, found.texts, {"asked": {**task.data}})

    return trial
