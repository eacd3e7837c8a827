"""Several processes beside one: the demo, the bytes that travel, and the memory of a model in shards.

    python -m bench.processes --scratch FOLDER --json bench/measured/processes.json
    python -m bench.processes --from bench/measured/processes.json --out docs/processes-measured.md

``--only demo,bytes,memory`` measures some of it; what the record has of the rest stays. The demo runs
once on one process of one thread and once on two (torchrun). The bytes are those of the gradients of
one step at a ratio of 0.05, next to the gradients of all weights. The memory is the peak of each
process, for a random Llama of 1.1 billion weights in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Memory, say
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json

PARTS = ("demo", "bytes", "memory")
RATIO = 0.05
SHAPE = "tinyllama-1.1b"
RECORDS = [
    {"input_ids": [*range(10 + i, 42 + i)], "labels": [*[-100] * 8, *range(18 + i, 42 + i)]}
    for i in range(4)
]
FORGET, RETAIN = RECORDS[:2], RECORDS[2:]


def start(processes: int, arguments: Sequence[str]) -> tuple[float, int]:
    """Run a module of Python on some processes of one thread each; its seconds and exit code."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command = [*torchrun, "-m", *arguments]
    if processes == 1:
        command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    began = time.perf_counter()
    code = subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode
    return time.perf_counter() - began, code


# ----- the demo -----


def demo(scratch: Path) -> dict[str, Any]:
    """The demo on one and on two processes: seconds, verdict, and the largest difference."""
    found: dict[str, Any] = {}
    for processes in (1, 2):
        out = scratch / f"demo-{processes}"
        if not (out / "report.html").is_file():
            shutil.rmtree(out, ignore_errors=True)
            say(f"the demo on {processes} process(es)")
            seconds, _ = start(
                processes, ["wagle", "run", "bundled:demo", "--out", str(out), "--no-fail"]
            )
            write_json(out / "seconds.json", seconds)
        stages = read_json(out / "state.json")["stages"]
        found[str(processes)] = {
            "seconds": round(read_json(out / "seconds.json"), 1),
            "stages": {name: one["seconds"] for name, one in stages.items()},
            "verdict": stages["after"]["verdict"],
            "figures": _figures(out),
        }
    one, two = found["1"]["figures"], found["2"]["figures"]
    assert one.keys() == two.keys()
    return {"runs": found, "differences": {name: abs(one[name] - two[name]) for name in one}}


def _figures(out: Path) -> dict[str, float]:
    """The figures of the three evaluations."""
    found = {}
    for role in ("reference", "before", "after"):
        for name, figure in read_json(out / "evaluation" / f"{role}.json")["metrics"].items():
            if isinstance(figure["value"], float):
                found[f"{role}.{name}"] = figure["value"]
    return found


# ----- what each process does by itself -----


def step_bytes(folder: str, out: str) -> None:
    """Count what the processes tell one another in a step, at a small ratio and on all weights."""
    import torch

    import wagle
    from wagle.model.demo import demo_model
    from wagle.model.loading import load_model
    from wagle.recipe.sections.training import Training
    from wagle.system.processes import group

    sent = {"bytes": 0}
    add_up = group.add_up

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        sent["bytes"] += tensor.nbytes
        return add_up(tensor)

    group.add_up = counted
    found: dict[str, Any] = {}
    for ratio in (RATIO, 1.0):
        model = load_model(demo_model())
        store = None if ratio == 1 else _random_mask(model, ratio)
        sent["bytes"], steps = 0, 2
        training = Training(max_steps=steps, learning_rate=1e-6, batch_size=2, precision="bfloat16")
        wagle.unlearn(
            model,
            None,
            FORGET,
            RETAIN,
            mask=store,
            objective="grad_diff",
            stop_when=[],
            training=training,
        )
        found[f"{ratio:g}"] = sent["bytes"] / steps
    count = sum(p.numel() for p in load_model(demo_model()).parameters())
    if group.main_process():
        write_json(Path(folder) / out, {**found, "all_weights": 4 * count})


def _random_mask(model: Any, ratio: float) -> Any:
    """A random mask, which needs no gradients."""
    import wagle

    store = wagle.gradients(model, None, FORGET, None, quantities=[])
    return wagle.Mask.from_scores(store, score="random", ratio=ratio)


def peak(folder: str, out: str, what: str, shard: str) -> None:
    """Attribute or unlearn the model in a folder, and write this process's peak memory."""
    import wagle
    from wagle.model.loading import load_model
    from wagle.model.saving import save_model
    from wagle.recipe.sections.training import Training
    from wagle.system.processes import group
    from wagle.unlearning.sharded import InShards

    home, scratch = Path(folder) / SHAPE, Path(folder)
    with Memory() as memory:
        if what == "attribution":
            store = scratch / f"store-{shard}"
            how: dict[str, Any] = {"shard": shard == "yes", "engine": "whole", "dtype": "float32"}
            wagle.gradients(home, None, FORGET, RETAIN, path=store, batch_tokens=64, **how)
        else:
            target = scratch / f"unlearned-{shard}"
            model: Any = InShards(home, target, scratch / "good")
            if shard == "no":
                model = load_model(home)
            mask = wagle.Mask.load(scratch / "mask.safetensors")
            training = Training(max_steps=2, learning_rate=1e-5, batch_size=2)
            named: dict[str, Any] = {
                "objective": "grad_diff",
                "stop_when": [],
                "training": training,
            }
            wagle.unlearn(model, None, FORGET, RETAIN, mask=mask, allow_other_model=True, **named)
            if shard == "no":
                save_model(model, home, target)
    write_json(scratch / f"{out}-{group.rank()}.json", memory.figures())


# ----- bytes and memory -----


def count_bytes(scratch: Path) -> dict[str, Any]:
    """The bytes of a step's gradients."""
    seconds, code = start(
        2, ["bench.processes", "--child", "step_bytes", str(scratch), "bytes.json"]
    )
    if code:
        raise SystemExit(f"bench.processes: the count ended with {code} after {seconds:.0f} s")
    found: dict[str, Any] = read_json(scratch / "bytes.json")
    return {**found, "share": found[f"{RATIO:g}"] / found["all_weights"]}


def memory(scratch: Path) -> dict[str, Any]:
    """The peak of one process, and of each of two with the model in shards."""
    from bench.models import make_folder

    if not (scratch / SHAPE).is_dir():
        make_folder(SHAPE, scratch / SHAPE)
    _save_mask(scratch)
    found: dict[str, Any] = {}
    for what in ("attribution", "unlearning"):
        found[what] = {}
        for processes, shard in ((1, "no"), (2, "yes")):
            say(f"{what} on {processes} process(es)")
            for path in scratch.glob("peak-*"):
                path.unlink()
            child = ["bench.processes", "--child", "peak", str(scratch), "peak", what, shard]
            seconds, code = start(processes, child)
            if code:
                raise SystemExit(f"bench.processes: {what} ended with {code}")
            peaks = [read_json(path) for path in sorted(scratch.glob("peak-*"))]
            found[what][str(processes)] = {"seconds": round(seconds, 1), "peaks": peaks}
            for path in (scratch / f"store-{shard}", scratch / f"unlearned-{shard}"):
                shutil.rmtree(path, ignore_errors=True)
        one = found[what]["1"]["peaks"][0]
        two = found[what]["2"]["peaks"]
        found[what]["share"] = {key: max(p[key] for p in two) / one[key] for key in one}
    return found


def _save_mask(scratch: Path) -> None:
    """A random mask of the model, made from its headers."""
    path = scratch / "mask.safetensors"
    if not path.is_file():
        import wagle

        store = wagle.gradients(scratch / SHAPE, None, FORGET, None, quantities=[])
        wagle.Mask.from_scores(store, score="random", ratio=RATIO).save(path)


# ----- the page -----


def page(record: dict[str, Any]) -> str:
    """The tables as a page of the documentation."""
    lines = ["# Several processes, measured", "", "Made by `python -m bench.processes` from "]
    lines[-1] += (
        "`bench/measured/processes.json`, on two processor cores; every process has one thread."
    )
    if "demo" in record:
        runs, told = record["demo"]["runs"], record["demo"]
        lines += [
            "",
            "## The demo",
            "",
            "| processes | seconds | verdict |",
            "| ---: | ---: | --- |",
        ]
        lines += [f"| {n} | {one['seconds']:.0f} | {one['verdict']} |" for n, one in runs.items()]
        ratio = runs["1"]["seconds"] / runs["2"]["seconds"]
        lines += [
            "",
            f"Two processes take {1 / ratio:.2f} of the time of one. How far their figures are apart:",
            "",
            "| model | a probability, at most | any figure, at most |",
            "| --- | ---: | ---: |",
        ]
        for role in ("reference", "before", "after"):
            own = {n: d for n, d in told["differences"].items() if n.startswith(role)}
            likely = max((d for n, d in own.items() if n.endswith(".probability")), default=0.0)
            worst = max(own, key=lambda name: own[name], default="")
            lines.append(f"| {role} | {likely:.1e} | {own.get(worst, 0.0):.1e} (`{worst}`) |")
        lines += [
            "",
            "Both ask the same model about the reference. The others were trained, in bfloat16: how a product "
            "is rounded there depends on which records share a batch, and so on how many processes share a "
            "step. In float32 twenty steps differ by less than 1e-5 (`tests/unlearning/test_processes.py`).",
        ]
    if "bytes" in record:
        told = record["bytes"]
        lines += [
            "",
            "## What travels",
            "",
            f"At a ratio of {RATIO:g}, the gradients of a step of the demo model are "
            f"{told[f'{RATIO:g}'] / 1e6:.1f} MB; with all weights trained they are "
            f"{told['1'] / 1e6:.1f} MB, as with DDP, whose gradients have the size of the model "
            f"({told['all_weights'] / 1e6:.1f} MB). The share is {told['share']:.3f}.",
        ]
    if "memory" in record:
        lines += [
            "",
            "## A model in shards",
            "",
            f"Peak memory of a process in GB, for a random Llama of 1.1 billion weights in float32 "
            f"(`{SHAPE}`); unlearning at a ratio of {RATIO:g}.",
            "",
            "| | one process | the larger of two | share |",
            "| --- | ---: | ---: | ---: |",
        ]
        for what, told in record["memory"].items():
            one = told["1"]["peaks"][0]["peak_gb"]
            two = max(p["peak_gb"] for p in told["2"]["peaks"])
            lines.append(f"| {what} | {one:.2f} | {two:.2f} | {two / one:.2f} |")
        lines += [
            "",
            "About 0.75 GB of every process are libraries, which no shard makes smaller.",
        ]
    return "\n".join([*lines, ""])


def main(options: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the record or the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--scratch", help="folder of the runs; a second call resumes the demo there"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--json", help="the record to write")
    parser.add_argument("--from", dest="record", help="a record to make the page from")
    parser.add_argument("--out", help="the page to write")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args(options)
    if asked.child:
        children: dict[str, Callable[..., None]] = {"step_bytes": step_bytes, "peak": peak}
        children[asked.child[0]](*asked.child[1:])
        return
    if (asked.scratch is None) == (asked.record is None):
        parser.error("give --scratch, to measure, or --from, to make the page from a record")
    path = Path(asked.record or asked.json or "")
    record: dict[str, Any] = read_json(path) if path.is_file() else {}
    if asked.scratch:
        scratch = Path(asked.scratch).absolute()
        scratch.mkdir(parents=True, exist_ok=True)
        parts = {"demo": demo, "bytes": count_bytes, "memory": memory}
        for name in asked.only.split(","):
            record[name] = parts[name](scratch)
            if asked.json:
                write_json(asked.json, record)
        print(json.dumps(record, indent=2))
    if asked.out:
        write_text(asked.out, page(record))


if __name__ == "__main__":
    main()
