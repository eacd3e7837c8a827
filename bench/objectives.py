"""Every objective on the demo model, one documented setting each: what it forgets and keeps.

    python -m bench.objectives --scratch FOLDER --out docs/objectives-measured.md

Teaches the demo model once, then runs every objective without a mask, and six of them also on the
masks ``wagle`` and ``random`` at ratio 0.5; ``rmu``, which trains three matrices without a mask,
also runs on a mask of all weights. Every run is a file in the folder, so a killed benchmark
resumes. Training stops when the forget probability reaches the reference's; the learning rates and
settings were chosen by hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import wagle
from bench.measure import say
from wagle.evaluation.measuring import evaluate
from wagle.model.loading import load_model
from wagle.recipe.reading import load_recipe
from wagle.recipe.sections.training import Training
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.system.atomic import read_json, write_json, write_text
from wagle.system.errors import TrainingStopped
from wagle.system.memory import give_memory_back
from wagle.unlearning.forgetting import forget_probability
from wagle.unlearning.objectives.table import OBJECTIVES

STEPS = 40
RATIO = 0.5
PROBED = ("npo", "simnpo", "grad_diff", "po", "rmu", "undial")
GOAL, KEPT = 1.25, 0.85  # at most forget over the reference's, at least retain over before


@dataclass(frozen=True)
class Case:
    """An objective with its documented setting."""

    objective: str
    rate: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)  # further keywords of ``unlearn``
    steps: int = STEPS

    @property
    def name(self) -> str:
        """Its name in the table."""
        extra = [str(self.more[k]) for k in ("wrapper", "dynamic_mask") if k in self.more]
        return " + ".join([self.objective, *extra])


CASES = (
    Case("none", 1e-5),
    Case("retain_finetune", 7e-5, steps=24),
    # Pulls every weight by up to 24 * 7e-5 * 5 = 0.0084; half of the model's are below 0.12.
    Case("l1_sparse", 7e-5, {"l1_weight": 5.0}, steps=24),
    Case("grad_ascent", 2e-5),
    Case("grad_diff", 3e-5),
    Case("ga_kl", 3e-5),
    Case("kl", 3e-5),
    Case("refusal", 1e-4),
    Case("po", 1e-3, {"forget_weight": 4.0}, steps=60),
    Case("refusal_kl", 1.5e-4, {"forget_weight": 2.0}),
    Case("random_label", 7e-5, more={"retain_term": "nll"}),
    Case("random_label_uniform", 5e-5, more={"retain_term": "nll"}),
    Case("llmu", 3e-5),
    Case("npo", 5e-5, {"retain_weight": 10.0}),
    Case("simnpo", 5e-5, {"beta": 2.5, "forget_weight": 1.0}),
    Case("tnpo", 7e-5),
    Case("dpo", 5e-5),
    Case("dpo_alt", 5e-5),
    Case("rmu", 5e-4, {"layer": 7, "steering": 20.0, "retain_weight": 10.0}),
    Case("undial", 7e-5, more={"retain_term": "nll"}),
    Case("ce_u", 3e-5, more={"retain_term": "nll"}),
    Case("wga", 7e-5),
    Case("satimp", 7e-5, {"retain_weight": 1.0}),
    Case("pdu", 5e-5, {"dual_start": 100.0, "epsilon": 0.3, "warmup": 5.0}),
    Case("max_entropy", 5e-5),
    Case("idk_ap", 1.5e-4, {"forget_weight": 2.0}),
    Case("jensun", 1.5e-4, {"forget_weight": 2.0}),
    Case("npo", 5e-5, {"retain_weight": 10.0}, {"wrapper": "gru"}),
    Case("npo", 5e-5, {"retain_weight": 10.0}, {"wrapper": "sam"}),
    Case("npo", 5e-5, {"retain_weight": 10.0}, {"wrapper": "smooth"}),
    Case("npo", 1e-4, more={"dynamic_mask": "sign_agreement"}),
    Case(
        "npo",
        1e-4,
        {"retain_weight": 10.0},
        {"dynamic_mask": "row_norm", "dynamic_settings": {"quantile": 0.9}},
    ),
    Case(
        "forget_finetune",
        1e-4,
        more={"wrapper": "task_vector", "stop_when": [], "wrapper_settings": {"scale": -1.0}},
        steps=12,
    ),
)


def _narrow(objective: str) -> bool:
    """Whether an objective trains only a few weights unless a mask says otherwise."""
    return OBJECTIVES[objective].trains is not None


WORK = [(case, "dense") for case in CASES] + [
    (case, arm)
    for case in CASES
    if case.name in PROBED
    for arm in (*(["everything"] if _narrow(case.objective) else []), "wagle", "random")
]


def prepare(folder: Path) -> Run:
    """The taught demo model, its reference's figures and its gradients."""
    recipe = load_recipe("demo", ["evaluation.generate=false"])
    return execute(recipe, folder / "run", until="gradients")


def _mask(run: Run, arm: str) -> wagle.Mask | None:
    if arm == "dense":
        return None
    store = wagle.GradientStore.open(run.private / "gradients")
    if arm == "everything":
        return wagle.Mask.from_scores(store, score="random", ratio=1.0, seed=0)
    return wagle.Mask.from_scores(store, score=arm, ratio=RATIO, seed=0)


def _records(run: Run, name: str) -> list[wagle.Record]:
    """A set of the demo; wrong answers of the same form serve as alternatives."""
    from dataclasses import replace

    return [replace(r, alternatives=r.perturbed_answers) for r in run.inputs.need(name)]


def told_of(case: Case) -> dict[str, Any]:
    """A case as its file and the table record it."""
    return {**asdict(case), "name": case.name}


def measure(run: Run, case: Case, arm: str) -> dict[str, Any]:
    """One run: what was reached, and after how many steps."""
    reference = run.evaluation("reference")
    assert reference is not None
    model = load_model(run.models.base, attention="eager")
    goal = reference.figures["forget"]["probability"].value  # float32; the table's are bfloat16
    began = time.perf_counter()
    steps: list[int] = []
    try:
        result = wagle.unlearn(
            model,
            run.inputs.encoder,
            _records(run, "forget"),
            run.inputs.need("retain"),
            mask=_mask(run, arm),
            objective=case.objective,
            objective_settings=case.settings,
            reference={"forget.probability": goal},
            check_every=3,
            training=Training(
                max_steps=case.steps, learning_rate=case.rate, batch_size=8, precision="bfloat16"
            ),
            on_step=lambda figures: steps.append(int(figures["step"])),
            **case.more,
        )
        stopped = result.stopped
    except TrainingStopped as error:
        stopped = str(error)
    took = time.perf_counter() - began
    found = figures(run, model)
    return {
        "case": told_of(case),
        "arm": arm,
        "steps": steps[-1] if steps else 0,
        "stopped": stopped,
        "seconds": took,
        **found,
    }


def figures(run: Run, model: PreTrainedModel) -> dict[str, float]:
    """Forget and retain probability and general accuracy of a live model."""
    found = {
        name: forget_probability(
            model, run.inputs.encoder.encode(run.inputs.need(name)), "bfloat16"
        )
        for name in ("forget", "retain")
    }
    general = evaluate(
        model,
        run.inputs.encoder,
        general=run.inputs.need("general"),
        generate=False,
        precision="bfloat16",
    )
    return {**found, "general": general.figures["general"]["accuracy"].value}


def run_all(folder: Path, only: Sequence[str] | None) -> list[dict[str, Any]]:
    """All cases; those that already have a file are read from it."""
    run = prepare(folder)
    found = []
    for role, source in (("before", run.models.base), ("reference", run.models.reference)):
        path = folder / "runs" / f"{role}.json"
        if not path.exists():
            assert source is not None
            model = load_model(source, attention="eager")
            write_json(path, {"arm": role, **figures(run, model)})
        found.append(read_json(path))
    for number, (case, arm) in enumerate(WORK, 1):
        path = folder / "runs" / f"{case.name.replace(' + ', '-')}@{arm}.json"
        # Not run yet, or run with another setting.
        if not path.exists() or read_json(path)["case"] != told_of(case):
            if only is not None and case.name not in only:
                continue
            say(f"{number} of {len(WORK)}: {case.name}, {arm}")
            write_json(path, measure(run, case, arm))
            give_memory_back()
        found.append(read_json(path))
    return found


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """The table as a page of the documentation."""
    known = {one["arm"]: one for one in found if "case" not in one}
    before, goal = known["before"], known["reference"]["forget"]
    lines = [
        "| objective | weights | learning rate, settings | steps | forget probability | over reference "
        "| retain, share of before | general accuracy | reached |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        f"| before | | | | {before['forget']:.3f} | {before['forget'] / goal:.2f} | 1.00 | "
        f"{before['general']:.3f} | |",
        f"| reference (never taught) | | | | {goal:.3f} | 1.00 | | "
        f"{known['reference']['general']:.3f} | |",
    ]
    reached = []
    for one in found:
        if "case" not in one:
            continue
        over, kept = one["forget"] / goal, one["retain"] / before["retain"]
        good = over <= GOAL and kept >= KEPT
        reached += [one] if good else []
        case = one["case"]
        settings = {**case["settings"], **case["more"]}
        told = ", ".join([f"{case['rate']:g}", *(f"{k} {v}" for k, v in settings.items())])
        weights = _weights(case["objective"], one["arm"])
        lines.append(
            f"| {case['name']} | {weights} | {told} | {one['steps']} | {one['forget']:.3f} | "
            f"{over:.2f} | {kept:.2f} | {one['general']:.3f} | {'yes' if good else 'no'} |"
        )
    done, of = sum("case" in one for one in found), len(WORK)
    if done < of:
        lines += ["", f"{done} of {of} runs so far; the same command makes the rest."]
    best = max(reached, key=lambda one: (one["retain"], one["general"]), default=None)
    if best is not None:
        weights = _weights(best["case"]["objective"], best["arm"])
        told = f"{best['case']['name']} (weights: {weights})"
        lines += ["", f"Most kept among those that reached it: {told}."]
    return "\n".join([*_HEAD, *lines, ""])


def _weights(objective: str, arm: str) -> str:
    """Which weights an arm of a case trains, as the table says it."""
    if arm == "dense" and _narrow(objective):
        return "its own"
    return "all" if arm in ("dense", "everything") else f"{arm} {RATIO:g}"


_LONGER = [f"`{case.name}`: {case.steps}" for case in CASES if case.steps > STEPS]


_HEAD = [
    "# Objectives, measured",
    "",
    'Made by `make objectives ARGS="--scratch FOLDER"`; one seed, one setting each, learning rates '
    "and weights of the terms chosen by hand, so a row says what this setting does and not what the "
    "objective can do.",
    "The demo model was taught eight fictitious authors and forgets two of them; the reference is "
    "the model before it was taught. *Reached* means a forget probability of at most "
    f"{GOAL:g} x the reference's with a retain probability of at least {KEPT:g} of before. Training "
    f"stops when the reference is reached, at most after {STEPS} steps of 8 + 8 records ("
    f"{', '.join(_LONGER)}).",
    "`rmu` without a mask trains the three matrices of its paper only, *its own*; with a mask of all "
    "weights, all.",
    "",
]


def main(options: Sequence[str] | None = None) -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--scratch", required=True, help="folder of the runs; a second call resumes there"
    )
    parser.add_argument("--out", help="the page; without it, it is printed")
    parser.add_argument("--only", help="names of cases, separated by commas")
    asked = parser.parse_args(options)
    only = asked.only.split(",") if asked.only else None
    text = page(run_all(Path(asked.scratch), only))
    if asked.out:
        write_text(asked.out, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
