"""The demo's recipe: what was tried for it, and whether its verdict holds elsewhere.

    python -m bench.demo try --scratch FOLDER --json bench/measured/demo-tried.json
    python -m bench.demo hold --scratch FOLDER --json bench/measured/demo-holds.json
    python -m bench.demo page --out docs/demo.md

``try`` teaches the demo model (once per seed) and unlearns it with every setting in TRIED: what was
forgotten, and what was lost beside it. ``hold`` runs the demo as it ships, on seeds 0 to 4 and 1
and 2 threads. Both resume in their folder. ``page`` makes the page from the two records.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.measure import ROOT, say
from wagle.attribution.store import GradientStore
from wagle.evaluation.losses import losses
from wagle.evaluation.measuring import evaluate
from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.selection import load_trained
from wagle.run.stages.making.mask import select
from wagle.run.stages.making.unlearn import forget
from wagle.run.stages.measuring.evaluations import questions_about, way_of
from wagle.system.errors import TrainingStopped
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json

SETS = ("forget", "retain", "retain_heldout", "general")
PROBES = ("probability", "paraphrased", "extraction_strength", "exact_memorization", "rouge_l")
MEASURED = ROOT / "bench" / "measured"


def _rate(rate: float, *more: str) -> tuple[str, ...]:
    return (f"unlearning.learning_rate={rate:g}", *more)


def _weights(score: str, ratio: float, *more: str) -> tuple[str, ...]:
    return (f"attribution.score={score}", f"attribution.ratio={ratio:g}", *more)


KL = "unlearning.retain_term=kl"

CE_U = ("unlearning.objective=ce_u", "unlearning.retain_term=nll")
START = (
    "unlearning.objective=wga",
    "unlearning.retain_term=auto",
)  # unless a setting says otherwise

TRIED: dict[str, tuple[str, ...]] = {
    "wagle 0.5, wga": (*_weights("wagle", 0.5), *_rate(7e-5)),
    "wagle 0.5, wga + kl": (*_weights("wagle", 0.5), *_rate(7e-5, KL)),
    "wagle 0.05, wga + kl": (*_weights("wagle", 0.05), *_rate(3e-4, KL)),
    "wagle 0.01, ce_u": (*_weights("wagle", 0.01), *_rate(7e-4, *CE_U)),
    "random 0.01, ce_u": (*_weights("random", 0.01), *_rate(3e-3, *CE_U)),
    "grad_ratio 0.001, wga": (*_weights("grad_ratio", 0.001), *_rate(2e-3)),
    "grad_ratio 0.001, ce_u": (*_weights("grad_ratio", 0.001), *_rate(2e-3, *CE_U)),
    "grad_ratio 0.01, ce_u": (*_weights("grad_ratio", 0.01), *_rate(7e-4, *CE_U)),
    "grad_ratio 0.01, ce_u from the first token": (
        *_weights("grad_ratio", 0.01),
        *_rate(7e-4, *CE_U, "unlearning.objective_settings={skip: 0}"),
    ),
    "grad_ratio 0.02, ce_u": (*_weights("grad_ratio", 0.02), *_rate(5e-4, *CE_U)),
    "grad_ratio 0.02, ce_u from the first token": (
        *_weights("grad_ratio", 0.02),
        *_rate(5e-4, *CE_U, "unlearning.objective_settings={skip: 0}"),
    ),
    "grad_ratio 0.05, ce_u": (*_weights("grad_ratio", 0.05), *_rate(3e-4, *CE_U)),
}


# ----- what was tried -----


def prepare(folder: Path, seed: int) -> Run:
    """The taught demo model, the figures of it and its reference, and its gradients."""
    place = folder / f"seed-{seed}"
    if (place / "recipe.yaml").is_file() and (place / "evaluation/before.json").is_file():
        return Run(place, load_recipe(place / "recipe.yaml"))
    return execute(load_recipe("demo", [f"seed={seed}"]), place, until="gradients")


def attempt(run: Run, overrides: Sequence[str]) -> dict[str, Any]:
    """Unlearn with other settings: what was reached, beside the model before and the reference."""
    recipe = load_recipe("demo", [f"seed={run.recipe.seed}", *START, *overrides])
    store = GradientStore.open(run.models.gradients)
    mask = select(store, recipe.attribution, recipe.seed)
    here = Run(run.folder, recipe)
    model = load_trained(here, run.models.base)
    began, error = time.perf_counter(), None
    try:
        result = forget(here, model, lambda _: mask, None)
    except TrainingStopped as stopped:
        result, error = None, str(stopped)
    seconds = time.perf_counter() - began
    sets = dict(here.inputs.sets)
    gone = questions_about(here, {"forget": sets.pop("forget")})
    kept = {**questions_about(here, sets), "generate": False}
    texts, rest = (
        evaluate(model, here.inputs.encoder, **asked, **way_of(here)) for asked in (gone, kept)
    )
    found = Evaluation({**texts.figures, **rest.figures})
    return {
        "settings": list(overrides),
        "selected": mask.count,
        "seconds": round(seconds, 1),
        "steps": 0 if result is None else result.history[-1]["step"],
        "stopped": error or (result and result.stopped),
        "landed": result and result.landed,
        "figures": {
            role: told(one)
            for role, one in (
                ("after", found),
                ("before", run.evaluation("before")),
                ("reference", run.evaluation("reference")),
            )
        },
    }


def told(found: Evaluation | None) -> dict[str, Any]:
    """The figures that the page shows, with their intervals."""
    assert found is not None
    figures = {}
    for name in SETS:
        for metric in PROBES:
            figure = found.figures[name].get(metric)
            if figure is not None and (name == "forget" or metric == "probability"):
                figures[f"{name}.{metric}"] = [figure.value, *(figure.interval or ())]
    return figures


def try_all(folder: Path, seeds: Sequence[int], only: str | None) -> list[dict[str, Any]]:
    """Every setting on these seeds; each is a file, so a killed benchmark resumes."""
    found = []
    for seed in seeds:
        for name, overrides in TRIED.items():
            path = folder / "tried" / f"{seed}-{name.replace(' ', '-').replace(',', '')}.json"
            if not path.exists() or read_json(path)["settings"] != list(overrides):
                if only is not None and only not in name:
                    continue
                say(f"seed {seed}: {name}")
                write_json(
                    path, {"name": name, "seed": seed, **attempt(prepare(folder, seed), overrides)}
                )
            found.append(read_json(path))
            say(_line(found[-1]))
    return found


def _line(one: Mapping[str, Any]) -> str:
    after, before = one["figures"]["after"], one["figures"]["before"]
    lost = [
        f"{name} {after[f'{name}.probability'][0] / before[f'{name}.probability'][0] - 1:+.1%}"
        for name in SETS[1:]
    ]
    share = one["landed"]["share"] if one["landed"] else None
    return (
        f"{one['name']}: {one['steps']} steps, {one['seconds']} s, landed {share}, forget "
        f"{after['forget.probability'][0]:.3f}, {', '.join(lost)}"
    )


# ----- whether it holds -----


def hold(folder: Path, seeds: Sequence[int], threads: Sequence[int]) -> list[dict[str, Any]]:
    """The demo as it ships, in a process of its own for each seed and number of threads."""
    found = []
    for seed in seeds:
        for count in threads:
            path = folder / "holds" / f"seed-{seed}-threads-{count}.json"
            if not path.exists():
                say(f"demo, seed {seed}, {count} threads")
                write_json(path, run_demo(folder / f"demo-{seed}-{count}", seed, count))
            found.append(read_json(path))
    return found


def run_demo(place: Path, seed: int, threads: int) -> dict[str, Any]:
    """One whole demo; only its figures are kept."""
    command = [sys.executable, "-m", "wagle", "run", "demo", f"seed={seed}", "--out", str(place)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    run = Run(place, load_recipe(place / "recipe.yaml"))
    after, before, reference = (run.evaluation(role) for role in ("after", "before", "reference"))
    assert after is not None
    assert before is not None
    state = read_json(place / "state.json")["stages"]
    record = {
        "seed": seed,
        "threads": threads,
        "exit_code": done.returncode,
        "verdict": state["after"]["verdict"],
        "reasons": state["after"]["reasons"],
        "steps": state["unlearn"]["steps"],
        "landed": state["unlearn"]["landed"],
        "seconds": round(seconds, 1),
        "stages": {k: v["seconds"] for k, v in state.items()},
        "losses": [
            {"name": one.name, "share": one.share, "interval": list(one.interval)}
            for one in losses(after, before)
        ],
        "figures": {"after": told(after), "before": told(before), "reference": told(reference)},
    }
    shutil.rmtree(place)
    return record


def page(tried: Mapping[str, Any], holds: Mapping[str, Any]) -> str:
    """The two records as a page of the documentation."""
    lines = [
        *_HEAD,
        "## Does it hold?",
        "",
        "Each row is a whole run in a process of its own. *Forget* is the forget probability after "
        "unlearning, beside the band, the reference's 95 % interval; the others are the shares lost.",
        "",
        "| seed | threads | verdict | forget | band | retain | retain, held out | general | steps |",
        "| ---: | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in holds["runs"]:
        after, goal = (one["figures"][r]["forget.probability"] for r in ("after", "reference"))
        lost = {loss["name"]: f"{100 * loss['share']:+.1f} %" for loss in one["losses"]}
        lines.append(
            f"| {one['seed']} | {one['threads']} | {one['verdict']} | {after[0]:.3f} | "
            f"{goal[1]:.3f} to {goal[2]:.3f} | {' | '.join(lost[n] for n in SETS[1:])} "
            f"| {one['steps']} |"
        )
    lines += [
        "",
        "## What was tried",
        "",
        "One taught model per seed; each row stopped at the probability of the reference, and landed in its band. *Extraction* and "
        "*memorisation* are `extraction_strength` and `exact_memorization` of the forget set: above "
        "the reference's interval, they leak.",
        "",
        "| weights, objective | seed | forget | extraction | memorisation | retain | "
        "retain, held out | general | steps |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in tried["runs"]:
        after, before = (one["figures"][r] for r in ("after", "before"))
        gone = [
            f"{after[f'forget.{m}'][0]:.3f}"
            for m in ("probability", "extraction_strength", "exact_memorization")
        ]
        lost = [
            f"{100 * (after[f'{n}.probability'][0] / before[f'{n}.probability'][0] - 1):+.1f} %"
            for n in SETS[1:]
        ]
        lines.append(
            f"| {one['name']} | {one['seed']} | {' | '.join([*gone, *lost])} | {one['steps']} |"
        )
    goal = tried["runs"][0]["figures"]["reference"]
    ends = [
        f"{name} {goal[f'forget.{metric}'][1]:.3f} to {goal[f'forget.{metric}'][2]:.3f}"
        for name, metric in (
            ("forget", "probability"),
            ("extraction", "extraction_strength"),
            ("memorisation", "exact_memorization"),
        )
    ]
    return "\n".join([*lines, "", f"The reference's intervals: {', '.join(ends)}.", ""])


_HEAD = [
    "# The demo",
    "",
    "Made by `python -m bench.demo page` from `bench/measured/demo-holds.json` and "
    "`bench/measured/demo-tried.json`; the same command with `hold` or `try` measures them anew.",
    "",
]


def machine() -> dict[str, Any]:
    """Where a record was made."""
    return {"torch": torch.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}


def main(options: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the record or the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("try", "hold", "page"))
    parser.add_argument("--scratch", help="folder of the runs; a second call resumes there")
    parser.add_argument("--json", help="the record to write")
    parser.add_argument("--out", default="docs/demo.md", help="the page to write")
    parser.add_argument("--seeds", default="0", help="of what is tried, separated by commas")
    parser.add_argument("--threads", default="1,2", help="of the demos, separated by commas")
    parser.add_argument("--only", help="try only settings whose name holds this")
    asked = parser.parse_args(options)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    if asked.what == "page":
        records = [read_json(MEASURED / f"demo-{name}.json") for name in ("tried", "holds")]
        write_text(asked.out, page(*records))
        return
    place = Path(asked.scratch)
    if asked.what == "try":
        runs = try_all(place, seeds, asked.only)
    else:
        runs = hold(place, seeds, [int(count) for count in asked.threads.split(",")])
    if asked.json:
        write_json(asked.json, {"machine": machine(), "runs": runs})


if __name__ == "__main__":
    main()
