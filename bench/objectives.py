"""Every objective on the demo model, one documented setting each: what it forgets and keeps.

    python -m bench.objectives --scratch FOLDER --json bench/measured/objectives.json
    python -m bench.objectives --from bench/measured/objectives.json --out docs/objectives-measured.md

Teaches the demo model once, then runs six objectives on all weights and on the masks ``wagle`` and
``random`` at ratio 0.5, and the others on all weights; ``rmu``, which trains three matrices without
a mask, also runs on a mask of all weights. Every run is a file in the folder, so a killed benchmark
resumes; ``--only`` names the objectives to run. Training stops when the forget probability reaches
the reference's, and lands in its band; the learning rates and settings were chosen by hand.
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
from wagle.metrics.bands import Band, acceptable
from wagle.model.loading import load_model
from wagle.recipe.reading import load_recipe
from wagle.recipe.sections.training import Training
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.stages.making.unlearn import reference_figures
from wagle.system.errors import TrainingStopped
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json
from wagle.system.memory import give_memory_back
from wagle.unlearning.objectives.table import OBJECTIVES

STEPS = 40
RATIO = 0.5
MASKS = ("wagle", "random")
PROBED = ("npo", "simnpo", "grad_diff", "po", "rmu", "undial")
KEPT = 0.95  # at least, of each set that must stay, over before
SETS = ("forget", "retain", "retain_heldout", "general")


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


_MAIN = [case for case in CASES if case.name in PROBED]
WORK = [
    *(
        (c, arm)
        for c in _MAIN
        for arm in ("everything" if _narrow(c.objective) else "dense", *MASKS)
    ),
    *((c, "dense") for c in CASES if c not in _MAIN or _narrow(c.objective)),
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
    began = time.perf_counter()
    steps: list[int] = []
    landed = None
    try:
        result = wagle.unlearn(
            model,
            run.inputs.encoder,
            _records(run, "forget"),
            run.inputs.need("retain"),
            mask=_mask(run, arm),
            objective=case.objective,
            objective_settings=case.settings,
            reference=reference_figures(run),
            check_every=3,
            training=Training(
                max_steps=case.steps, learning_rate=case.rate, batch_size=8, precision="bfloat16"
            ),
            on_step=lambda figures: steps.append(int(figures["step"])),
            **case.more,
        )
        stopped, landed = result.stopped, result.landed
    except TrainingStopped as error:
        stopped = str(error)
    took = time.perf_counter() - began
    return {
        "case": told_of(case),
        "arm": arm,
        "steps": steps[-1] if steps else 0,
        "stopped": stopped,
        "landed": landed,
        "seconds": round(took, 1),
        "figures": figures(run, model),
    }


def figures(run: Run, model: PreTrainedModel) -> dict[str, float]:
    """The probability of every set, as an evaluation finds it."""
    sets = {name: run.inputs.need(name) for name in SETS}
    found = evaluate(model, run.inputs.encoder, **sets, generate=False)
    return {name: found.figures[name]["probability"].number for name in SETS}


def run_all(folder: Path, only: Sequence[str] | None) -> dict[str, Any]:
    """All cases; those that already have a file are read from it."""
    run = prepare(folder)
    reference = run.evaluation("reference")
    before = run.evaluation("before")
    assert reference is not None
    assert before is not None
    goal = reference.figures["forget"]["probability"]
    found = []
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
    return {
        "before": {name: before.figures[name]["probability"].number for name in SETS},
        "reference": goal.number,
        "band": list(acceptable(goal.number, goal.interval)),
        "runs": found,
    }


def page(record: Mapping[str, Any]) -> str:
    """The table as a page of the documentation."""
    before, band, runs = record["before"], Band(*record["band"]), record["runs"]
    lines = [
        "| objective | weights | learning rate, settings | steps | forget probability | in the band "
        "| retain | retain, held out | general | kept |",
        "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- |",
        f"| before | | | | {before['forget']:.3f} | | {before['retain']:.3f} | "
        f"{before['retain_heldout']:.3f} | {before['general']:.3f} | |",
    ]
    for one in runs:
        case, found = one["case"], one["figures"]
        settings = {**case["settings"], **case["more"]}
        told = ", ".join([f"{case['rate']:g}", *(f"{k} {v}" for k, v in settings.items())])
        changes = {name: found[name] / before[name] - 1 for name in SETS[1:]}
        kept = all(change >= KEPT - 1 for change in changes.values())
        lines.append(
            f"| {case['name']} | {_weights(case['objective'], one['arm'])} | {told} | {one['steps']} "
            f"| {found['forget']:.3f} | {_yes(band.contains(found['forget']))} | "
            + " | ".join(f"{100 * change:+.1f} %" for change in changes.values())
            + f" | {_yes(kept)} |"
        )
    landed = [one for one in runs if one["landed"]]
    inside = sum(band.contains(one["figures"]["forget"]) for one in landed)
    lines += [
        "",
        f"The reference's probability is {record['reference']:.3f}, its band {band.low:.3f} to "
        f"{band.high:.3f}. Of {len(landed)} runs that landed, {inside} are in the band.",
    ]
    if len(runs) < len(WORK):
        lines += ["", f"{len(runs)} of {len(WORK)} runs so far; the same command makes the rest."]
    return "\n".join([*_HEAD, *lines, ""])


def _yes(found: bool) -> str:
    return "yes" if found else "no"


def _weights(objective: str, arm: str) -> str:
    """Which weights an arm of a case trains, as the table says it."""
    if arm == "dense" and _narrow(objective):
        return "its own"
    return "all" if arm in ("dense", "everything") else f"{arm} {RATIO:g}"


_LONGER = [f"`{case.name}`: {case.steps}" for case in CASES if case.steps > STEPS]


_HEAD = [
    "# Objectives, measured",
    "",
    "Made by `python -m bench.objectives` from `bench/measured/objectives.json`; one seed, one setting "
    "each, learning rates and weights of the terms chosen by hand, so a row says what this setting does "
    "and not what the objective can do.",
    "The demo model was taught eight fictitious authors and forgets two of them; the reference is "
    "the model before it was taught. Training stops when the forget probability reaches the "
    "reference's, and the run [lands](unlearning.md#control) in its band; it ends after "
    f"{STEPS} steps of 8 + 8 records at the latest ({', '.join(_LONGER)}). The figures are "
    "probabilities as an evaluation finds them; what must stay is shown as its change. *Kept* means that "
    f"no set lost more than {100 * (1 - KEPT):.0f} % by its mean.",
    "`rmu` without a mask trains the three matrices of its paper only, *its own*; with a mask of all "
    "weights, all.",
    "",
]


def main(options: Sequence[str] | None = None) -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", help="folder of the runs; a second call resumes there")
    parser.add_argument("--out", help="the page to write")
    parser.add_argument("--only", help="names of cases, separated by commas")
    parser.add_argument("--json", help="the record to write")
    parser.add_argument("--from", dest="record", help="a record to make the page from")
    asked = parser.parse_args(options)
    if (asked.scratch is None) == (asked.record is None):
        parser.error("give --scratch, to measure, or --from, to make the page from a record")
    only = asked.only.split(",") if asked.only else None
    record = read_json(Path(asked.record)) if asked.record else run_all(Path(asked.scratch), only)
    if asked.json:
        write_json(asked.json, record)
    if asked.out:
        write_text(asked.out, page(record))


if __name__ == "__main__":
    main()
