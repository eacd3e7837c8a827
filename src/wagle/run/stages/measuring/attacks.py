"""The stage ``attacks``: every attack in the recipe, on the unlearned and the other models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wagle.attacks.effects import effects
from wagle.attacks.kinds.quantization.codes import changed_codes
from wagle.attacks.shapes import ATTACKED, Scene, Series, Trial
from wagle.attacks.table import check_settings, make_attack
from wagle.evaluation.figures import Figure
from wagle.evaluation.models import Way
from wagle.recipe.sections.evaluation import Attack
from wagle.report.disclosure import public
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json
from wagle.system.memory import give_memory_back

logger = logging.getLogger(__name__)

CODED = ("int8", "int4")  # quantisation formats whose codes can be compared


def scene_of(run: Run) -> Scene:
    """What the attacks of a run use."""
    settings = run.recipe.evaluation
    way = Way(
        run.inputs.encoder,
        settings.precision,
        settings.batch_tokens,
        run.private / "answers",
        settings.engine,
    )
    trust = run.recipe.model.trust_remote_code
    return Scene(way, run.inputs.sets, run.recipe.seed, run.models.named, trust)


def attacks(run: Run, beside: Path | None = None) -> dict[str, Any]:
    """Make every attack that is not finished yet.

    Args:
        run: the run whose unlearned model is attacked.
        beside: the folder with the same attacks on the original and the reference model, if they
            exist already; None makes them.
    """
    scene, made = scene_of(run), {}
    for asked in run.recipe.attacks:
        path = run.folder / "attacks" / f"{asked.called}.json"
        model = run.evaluation("after")
        assert model is not None
        print_of = model.details["model"]["fingerprint"]
        if not path.is_file() or read_json(path)["model"] != print_of:
            trial = make_attack(asked.name, scene, asked.settings)
            series: dict[str, Series] = {}
            for role in ATTACKED:
                if beside is None or role == "after":
                    found = _try(run, asked, role, trial)
                else:
                    found = _read(beside / f"{asked.called}.json", role)
                if found is not None:
                    series[role] = found
            write_json(path, {"model": print_of, **_result(run, asked, series)})
            if beside is None:  # for control arms the report shows it side by side
                _warn(asked.called, series)
        made[asked.called] = asked.name
    return {"attacks": made}


def _try(run: Run, asked: Attack, role: str, trial: Trial) -> Series | None:
    """One attack on one model, or None if there is no such model."""
    folders = {
        "after": run.folder / "model",
        "before": run.models.base,
        "reference": run.models.reference,
    }
    folder = folders[role]
    if folder is None:
        return None
    logger.info("attack %s on the model %s", asked.called, role)
    load = run.models.load if asked.name == "quantization" else run.models.to_ask
    found = trial(load(folder))
    give_memory_back()
    texts = {state: [asdict(one) for one in said] for state, said in found.texts.items()}
    path = run.private / f"attack-{asked.called}-{role}.json"
    write_json(path, texts, private=True)
    return found


def _warn(label: str, found: Mapping[str, Series]) -> None:
    """Warn if an attack recovered clearly more than it did from the reference.

    A figure without an interval, such as the largest of many, is never clearly above another.
    """
    worst: tuple[float, str, str] | None = None
    for state, by_name in effects(found).items():
        for name, effect in by_name.items():
            own = found["after"].states[state][name]
            goal = found["reference"].states[state].get(name) if effect.gap is not None else None
            if goal is None or effect.gap is None or effect.gap <= 0:
                continue
            if own.interval is None or goal.interval is None:
                continue
            if own.low > goal.high and (worst is None or effect.gap > worst[0]):
                worst = (effect.gap, f"{name} {own.number:.3g} ({state})", f"{goal.number:.3g}")
    if worst is not None:
        gap, what, beside = worst
        logger.warning(
            "the attack %s recovers what the reference does not know: %s against the reference's "
            "%s, a gap of %.2g",
            label,
            what,
            beside,
            gap,
        )


def _read(path: Path, role: str) -> Series | None:
    """What an attack found for a model, from its file; the texts are left there."""
    found = read_json(path)["roles"].get(role)
    if found is None:
        return None
    states = {
        state: {
            name: Figure(
                f["value"],
                f["interval"] and tuple(f["interval"]),
                "as stored",
                unit=f["unit"],
                note=f["note"],
                count=f["n"],
            )
            for name, f in figures.items()
        }
        for state, figures in found["states"].items()
    }
    return Series(states, details=found["details"])


def _result(run: Run, asked: Attack, found: Mapping[str, Series]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "schema": "wagle-attack/1",
        "attack": asked.name,
        "settings": public(asked.settings),
        "seed": run.recipe.seed,
        "roles": {
            role: {
                "states": {
                    state: {
                        name: {
                            "value": figure.value,
                            "interval": figure.interval and list(figure.interval),
                            "n": figure.n,
                            "unit": figure.unit,
                            "note": figure.note,
                        }
                        for name, figure in figures.items()
                    }
                    for state, figures in series.states.items()
                },
                "details": dict(series.details),
            }
            for role, series in found.items()
        },
        "effects": {
            state: {name: asdict(effect) for name, effect in by_name.items()}
            for state, by_name in effects(found).items()
        },
    }
    if asked.name == "quantization":
        # a mask on an adapter says nothing about the merged weights
        mask = chosen_mask(run) if run.recipe.unlearning.lora is None else None
        size = check_settings(asked.name, asked.settings).get("group_size")
        made["codes"] = {
            how: changed_codes(run.models.base, run.folder / "model", how, mask, group_size=size)
            for how in CODED
            if how in found["after"].states
        }
    return made


def check(run: Run) -> None:
    """Check that every attack has what it needs."""
    scene = scene_of(run)
    for asked in run.recipe.attacks:
        make_attack(asked.name, scene, asked.settings)
