"""Several processes beside one: the demo, the bytes that travel, and the memory of a model in shards.

    python -m bench.processes --scratch FOLDER --json bench/measured/processes.json
    python -m bench.processes --from bench/measured/processes.json --out docs/processes-measured.md

``--only demo,dealt,bytes,memory`` measures some of it; what the record has of the rest stays. The demo runs
once on one process of one thread and once on two (torchrun); so it does with its steps cut into
micro-batches that are dealt out whole. The bytes are those of the gradients of
one step at a ratio of 0.05, next to the gradients of all weights. The memory is the peak of each
process, for random Llamas of 1.1 and 1.5 billion weights in float32, whose parts a second call resumes.
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
from bench.processes_page import RATIO, page
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json

PARTS = ("demo", "dealt", "bytes", "memory")
HALVES = [
    *("finetune.batch_size=8", "finetune.accumulation=2"),
    *("unlearning.batch_size=4", "unlearning.accumulation=2"),
]
SHAPES = ("tinyllama-1.1b", "llama-1.5b")
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


def demo(scratch: Path, name: str = "demo", more: Sequence[str] = ()) -> dict[str, Any]:
    """The demo on one and on two processes: seconds, verdict, and the largest difference."""
    found: dict[str, Any] = {}
    for processes in (1, 2):
        out = scratch / f"{name}-{processes}"
        if not (out / "report.html").is_file():
            shutil.rmtree(out, ignore_errors=True)
            say(f"the {name} on {processes} process(es)")
            command = ["wagle", "run", "bundled:demo", *more, "--out", str(out), "--no-fail"]
            seconds, _ = start(processes, command)
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


def dealt(scratch: Path) -> dict[str, Any]:
    """The same steps, in two micro-batches each, of which either process has one."""
    return demo(scratch, "dealt", HALVES)


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


def peak(folder: str, shape: str, out: str, what: str, shard: str) -> None:
    """Attribute or unlearn the model in a folder, and write this process's peak memory."""
    import wagle
    from wagle.model.loading import load_model
    from wagle.model.saving import save_model
    from wagle.recipe.sections.unlearning import Unlearning
    from wagle.system.processes import group
    from wagle.unlearning.forgetting import unlearn_with
    from wagle.unlearning.sharded import InShards

    home, scratch = Path(folder) / shape, Path(folder)
    with Memory() as memory:
        if what == "attribution":
            store = scratch / "made"
            how: dict[str, Any] = {"shard": shard == "yes", "engine": "whole", "dtype": "float32"}
            wagle.gradients(home, None, FORGET, RETAIN, path=store, batch_tokens=64, **how)
        else:
            target = scratch / "made"
            model: Any = InShards(home, target, scratch / "good")
            if shard == "no":
                model = load_model(home)
            settings = Unlearning(
                objective="grad_diff",
                stop_when=[],
                max_steps=2,
                learning_rate=1e-5,
                batch_size=2,
            )
            unlearn_with(
                settings,
                model,
                None,
                FORGET,
                RETAIN,
                mask=wagle.Mask.load(scratch / f"{shape}.mask"),  # released in there, as in a run
                allow_other_model=True,
            )
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
    from bench.models import SHAPES as KNOWN
    from bench.models import make_folder

    found: dict[str, Any] = {}
    for shape in SHAPES:
        if not (scratch / shape).is_dir():
            make_folder(shape, scratch / shape)
        _save_mask(scratch, shape)
        work: dict[str, Any] = {}
        for what in ("attribution", "unlearning"):
            work[what] = {str(n): _peaks(scratch, shape, what, n) for n in (1, 2)}
            one, two = work[what]["1"]["peaks"][0], work[what]["2"]["peaks"]
            work[what]["share"] = {key: max(p[key] for p in two) / one[key] for key in one}
        found[shape] = {"weights": _weights(scratch / shape), "shape": KNOWN[shape], "work": work}
    return found


def _peaks(scratch: Path, shape: str, what: str, processes: int) -> dict[str, Any]:
    """The peak of every process; what an earlier call measured is kept."""
    kept = scratch / f"{shape}-{what}-{processes}.json"
    if not kept.is_file():
        say(f"{what} of {shape} on {processes} process(es)")
        for path in scratch.glob("peak-*"):
            path.unlink()
        shard = "yes" if processes > 1 else "no"
        child = ["bench.processes", "--child", "peak", str(scratch), shape, "peak", what, shard]
        seconds, code = start(processes, child)
        shutil.rmtree(scratch / "made", ignore_errors=True)
        if code:
            raise SystemExit(f"bench.processes: {what} ended with {code}")
        peaks = [read_json(path) for path in sorted(scratch.glob("peak-*"))]
        write_json(kept, {"seconds": round(seconds, 1), "peaks": peaks})
    found: dict[str, Any] = read_json(kept)
    return found


def _weights(folder: Path) -> int:
    """How many weights a model folder holds."""
    from wagle.model.loading import empty_model

    return sum(p.numel() for p in empty_model(folder).parameters())


def _save_mask(scratch: Path, shape: str) -> None:
    """A random mask of the model, made from its headers."""
    path = scratch / f"{shape}.mask"
    if not path.is_file():
        import wagle

        store = wagle.gradients(scratch / shape, None, FORGET, None, quantities=[])
        wagle.Mask.from_scores(store, score="random", ratio=RATIO).save(path)


def main(options: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the record or the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", help="folder of the runs; a second call resumes there")
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
        parts: dict[str, Callable[[Path], dict[str, Any]]] = {
            "demo": demo,
            "dealt": dealt,
            "bytes": count_bytes,
            "memory": memory,
        }
        for name in asked.only.split(","):
            record[name] = parts[name](scratch)
            if asked.json:
                write_json(asked.json, record)
        print(json.dumps(record, indent=2))
    if asked.out:
        write_text(asked.out, page(record))


if __name__ == "__main__":
    main()
