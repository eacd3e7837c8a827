"""Fuzzing: mutants of everything that wagle reads must be opened or refused in one line.

Every mutant is a pure function of the examples, the seed, its kind and its number. Each has 5 seconds
of processor time (20 by the clock) and may let the process grow by 1 GB. A mutant that fails is
replayed by name; salts and times in the examples are fixed, so on one machine they are always equal::

    python -m bench.fuzz --mutants 200000 --seed 0 --json bench/measured/fuzz.json
    python -m bench.fuzz --replay run:4711

Files are mutated in their bytes, in the values of their JSON, and in the headers of tensor files;
in most cases the checksum, seal or signature is made anew afterwards, so that what stands behind it
is reached. A run that is broken off is continued by the same command.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker each

from bench.fuzzing.examples import make_examples
from bench.fuzzing.kinds import KINDS
from bench.fuzzing.running import BYTES, GOOD, SECONDS, Found, replay, run_mutants

CHUNK = 2000  # mutants between two entries in the file that a broken run continues from


def lengths(examples: Path) -> dict[str, int]:
    """The lengths of the examples: where these are equal, so are the mutants."""
    files = sorted(path for path in examples.rglob("*") if path.is_file())
    return {
        path.relative_to(examples).as_posix(): path.stat().st_size
        for path in files
        if path.suffix in (".json", ".jsonl", ".yaml", ".csv")
        or path.name in ("mask.safetensors", "patch.safetensors")
    }


def chunks(kinds: list[str], each: int) -> Iterator[tuple[str, range]]:
    """Kinds and numbers, all kinds alike from the beginning."""
    for start in range(0, each, CHUNK):
        for kind in kinds:
            yield kind, range(start, min(each, start + CHUNK))


def fuzz(
    examples: Path, kinds: list[str], each: int, seed: int, *, workers: int = 2, out: Path | None
) -> dict[str, Found]:
    """Run the first mutants of some kinds.

    Args:
        examples: the folder of examples.
        kinds: in KINDS.
        each: how many mutants of each kind.
        seed: of the mutants.
        workers: how many processes.
        out: where what is done is kept until all is; None keeps nothing.
    """
    import torch

    torch.set_num_threads(1)
    done = _known(out, seed)
    found = {kind: Found() for kind in kinds}
    left = []
    for kind, numbers in chunks(kinds, each):
        name = f"{kind}:{numbers.start}:{numbers.stop}"
        if name in done:
            found[kind].add(_found(done[name]))
        else:
            left.append((name, kind, numbers))
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:  # each thread waits for its worker process
        jobs = {pool.submit(run_mutants, examples, k, seed, n): (name, k) for name, k, n in left}
        for number, job in enumerate(as_completed(jobs), 1):
            name, kind = jobs[job]
            part = job.result()
            found[kind].add(part)
            done[name] = {**vars(part), "counts": dict(part.counts)}
            if out is not None:
                out.write_text(json.dumps({"seed": seed, "done": done}))
            bad = sum(n for one in found.values() for w, n in one.counts.items() if w not in GOOD)
            told = (
                f"{number} of {len(jobs)} parts, {time.perf_counter() - started:.0f} s, {bad} bad"
            )
            print(told, file=sys.stderr, flush=True)
    return found


def _known(out: Path | None, seed: int) -> dict[str, Any]:
    """What a run with the same seed had done when it was broken off."""
    if out is None or not out.is_file():
        return {}
    told = json.loads(out.read_text())
    return dict(told["done"]) if told["seed"] == seed else {}


def _found(told: dict[str, Any]) -> Found:
    made = Found(failures=told["failures"])
    made.counts.update(told["counts"])
    made.slowest, made.largest = tuple(told["slowest"]), tuple(told["largest"])
    return made


def record(found: dict[str, Found], seed: int, made: dict[str, int]) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "seed": seed,
        "examples": made,
        "mutants": sum(sum(one.counts.values()) for one in found.values()),
        "limits": {"seconds": SECONDS, "bytes": BYTES},
        "python": platform.python_version(),
        "kinds": {
            kind: {
                "counts": dict(sorted(one.counts.items())),
                "slowest": {"seconds": round(one.slowest[0], 3), "number": one.slowest[1]},
                "largest": {"bytes": one.largest[0], "number": one.largest[1]},
                "failures": one.failures,
            }
            for kind, one in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=200_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument("--replay", help="KIND:NUMBER: run one mutant and show its traceback")
    parser.add_argument("--keep", type=Path, help="with --replay: a new folder for its files")
    parser.add_argument("--examples", type=Path, help="a folder in which to keep the examples")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        examples = (asked.examples or Path(scratch)).resolve()
        if not (examples / "logs").is_dir():
            examples.mkdir(parents=True, exist_ok=True)
            make_examples(examples)
        if asked.replay:
            replay(examples, asked.replay, asked.seed, asked.keep)
            return
        made = lengths(examples)
        part = asked.json and asked.json.with_suffix(".part.json")
        each = -(-asked.mutants // len(asked.kinds))
        found = fuzz(
            examples, asked.kinds, each, asked.seed, workers=asked.workers, out=part or None
        )
    told = record(found, asked.seed, made)
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
        part.unlink(missing_ok=True)
    bad = 0
    for kind, one in told["kinds"].items():
        ends = ", ".join(f"{n} {end}" for end, n in one["counts"].items())
        slow, large = one["slowest"]["seconds"], one["largest"]["bytes"] / 1e6
        print(f"{kind:14} {ends}; slowest {slow:.2f} s, largest {large:.0f} MB")
        bad += sum(n for end, n in one["counts"].items() if end not in GOOD)
        for name, said in one["failures"][:10]:
            print(f"    {name}: {said}")
    print(f"{told['mutants']:,} mutants, {bad} bad")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
