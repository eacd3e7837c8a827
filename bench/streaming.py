"""Training by blocks beside the model in memory: seconds a step, peak memory, and bytes read.

    python -m bench.streaming --scratch FOLDER --only small,depth --json bench/measured/streaming.json

``small`` is the 135M demo model, ratio 0.05, 8 + 8 records a step, by both engines. ``depth`` is the
peak memory of a step for 8, 16 and 32 blocks of one width. ``7b`` is a random Llama of the 7B shape in
bfloat16, 2 + 2 records, two steps by stream, with the bound on a step: the longer of its arithmetic at
the measured rate of matrix products and its reading at the measured rate of the disk. What the record
has of other parts stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import Memory, disk_rates, in_own_process, matmul_rate, moved, say
from bench.models import make_folder
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json

MODULE = "bench.streaming"
MOST = 1.6  # seconds a step of ``stream`` over ``whole``
_RATE_BYTES = 2 << 30  # of the file that the disk's rate is measured with


def train(
    folder: str,
    engine: str,
    *,
    records: int,
    steps: int,
    ratio: float = 0.05,
    objective: str = "grad_diff",
    dtype: str = "float32",
    precision: str = "float32",
    demo: bool = False,
) -> dict[str, Any]:
    """Unlearn with a random mask by an engine; seconds a step (the first left out), and memory.

    Args:
        folder: the model.
        engine: ``whole`` or ``stream``.
        records: of each set, in a step.
        steps: how many.
        ratio: of the mask.
        objective: the loss.
        dtype: of the weights in memory.
        precision: of the matrix products.
        demo: whether the records are those of the demo; otherwise they are random tokens.
    """
    import wagle
    from bench.setup import Setup, encoder_of, random_sets, record_sets
    from bench.unlearning import random_mask
    from wagle.model.loading import load_model
    from wagle.model.streaming.opening import open_streamed, stream_of
    from wagle.recipe.sections.training import Training

    setup = Setup(folder, None, "")
    forget, retain = record_sets(setup, records) if demo else random_sets("tinyllama-1.1b", records)
    encoder = encoder_of(setup) if demo else None
    times: list[float] = []
    spent: list[float] = []
    read: list[int] = []
    with Memory() as memory, moved() as bytes_moved:
        model = (load_model if engine == "whole" else open_streamed)(folder, dtype)
        stream = stream_of(model)

        def note(_: Any) -> None:
            times.append(time.perf_counter())
            spent.append(time.process_time())
            read.append(0 if stream is None else stream.read)

        result = wagle.unlearn(
            model,
            encoder,
            forget,
            retain,
            objective=objective,
            mask=random_mask(model, ratio),
            stop_when=[],
            allow_other_model=True,
            on_step=note,
            training=Training(
                max_steps=steps,
                batch_size=records,
                learning_rate=1e-5,
                precision=precision,  # type: ignore[arg-type]
                activation_checkpointing=dtype == "bfloat16",
            ),
        )
    return {
        "step_s": statistics.median(b - a for a, b in itertools.pairwise(times)),
        "processor_s": statistics.median(b - a for a, b in itertools.pairwise(spent)),
        "read_step_gb": statistics.median(b - a for a, b in itertools.pairwise(read)) / 1e9,
        "selected": result.selected,
        "changed": result.changed,
        "losses": [row["retain_nll"] for row in result.history],
        **memory.figures(),
        "moved_gb": bytes_moved,
    }


def _measure(folder: Path, engine: str, **more: Any) -> dict[str, Any]:
    say(f"{folder.name}, {engine}")
    return in_own_process(MODULE, "train", {"folder": str(folder), "engine": engine, **more})


def small(scratch: Path) -> dict[str, Any]:
    """The demo model by both engines, and how they compare."""
    from wagle.model.demo import demo_model

    del scratch
    asked: dict[str, Any] = {"records": 8, "steps": 6, "demo": True}
    found: dict[str, Any] = {
        engine: _measure(demo_model(), engine, **asked) for engine in ("whole", "stream")
    }
    ratio = found["stream"]["step_s"] / found["whole"]["step_s"]
    losses = zip(found["whole"]["losses"], found["stream"]["losses"], strict=True)
    return {
        **found,
        "step_ratio": ratio,
        "met": ratio <= MOST,
        "largest_difference": max(abs(a - b) for a, b in losses),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
    }


def depth(scratch: Path) -> dict[str, Any]:
    """Peak memory of training by stream for 8, 16 and 32 blocks of one width."""
    found: dict[str, Any] = {}
    for blocks in (8, 16, 32):
        folder = _folder(f"depth-{blocks}", scratch)
        more: dict[str, Any] = {"records": 2, "steps": 2, "dtype": "bfloat16"}
        found[str(blocks)] = _measure(folder, "stream", **more)
    peaks = [one["peak_gb"] for one in found.values()]
    return {**found, "spread": max(peaks) / min(peaks) - 1}


def seven(scratch: Path, objective: str = "grad_diff") -> dict[str, Any]:
    """Two steps of the 7B shape by stream, and the bound on a step."""
    from wagle.unlearning.engines import sizes_of

    folder = _folder("llama-2-7b", scratch)
    more: dict[str, Any] = {"records": 2, "steps": 3, "dtype": "bfloat16", "objective": objective}
    found = _measure(folder, "stream", **more)
    rate, disk = matmul_rate(4 * 62, 4096, 11008), disk_rates(scratch, _RATE_BYTES)
    sizes = sizes_of(folder)
    tokens = 4 * 62
    arithmetic = 8 * sizes.weights * tokens / rate  # forward, again, and back twice as much
    bound = max(arithmetic, found["read_step_gb"] / disk["read"])
    return {
        **found,
        "matmul_flops": rate,
        "disk_gb_s": disk,
        "bound_s": bound,
        "over_bound": found["step_s"] / bound,
    }


def _folder(shape: str, scratch: Path) -> Path:
    folder = scratch / shape
    return folder if folder.is_dir() else make_folder(shape, folder)


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "small": small,
    "depth": depth,
    "7b": seven,
    "7b-npo": partial(seven, objective="npo"),
}


def main(options: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("child", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help="where models are made")
    parser.add_argument("--only", default="small,depth", help="parts, separated by commas")
    parser.add_argument("--json", help="the record to write")
    asked = parser.parse_args(options)
    if asked.child:
        _, given, answer = asked.child
        write_json(answer, train(**json.loads(Path(given).read_text())))
        return
    if asked.scratch is None:
        parser.error("give --scratch")
    scratch = Path(asked.scratch).absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    there = asked.json is not None and Path(asked.json).is_file()
    record: dict[str, Any] = read_json(Path(asked.json)) if there else {}
    for name in asked.only.split(","):
        record[name] = PARTS[name](scratch)
        if asked.json:
            write_json(asked.json, record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
