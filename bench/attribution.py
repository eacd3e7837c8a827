"""Speed and memory of attribution: one table, every figure with its bound.

    python -m bench.attribution --rows whole,stream --tofu FOLDER --json FILE

Each measurement runs in its own process. GB are 1e9 bytes. Rows that share a measurement share its
figures. The table goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.lines import Line
from bench.measure import in_own_process, say, timed
from bench.measures import MEASURES
from bench.models import weights_of
from bench.rows import ROWS
from bench.setup import SCALES, Setup
from wagle.model.demo import demo_model
from wagle.system.errors import WagleError, choose

_FOLDERS = {"1b": "large", "7b": "largest"}  # the suffix of a measurement's name: its folder


def measure(rows: Sequence[str], setup: Setup, *, keep: bool = False) -> list[Line]:
    """Run what the rows need, in order, and give their lines.

    Args:
        rows: names in ROWS.
        setup: what is measured, and where.
        keep: keep the models and stores; otherwise each is deleted after its last use.
    """
    wanted = [name for name in rows if _has_room(name, setup)]
    queue = [m for m in MEASURES if any(m in ROWS[name].needs for name in wanted)]
    known: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(queue):
        say(f"{name} ({place + 1} of {len(queue)})")
        known[name], took = timed(
            lambda name=name: in_own_process("bench.measures", name, asdict(setup))  # type: ignore[misc]
        )
        say(f"{name} took {took:.0f} s in total")
        if not keep:
            _clean(setup, name, queue[place + 1 :])
    return [line for name in wanted for line in ROWS[name].lines(known)]


def _has_room(name: str, setup: Setup) -> bool:
    """Whether the disk has room for the row's files; if not, say so and skip the row."""
    disk = ROWS[name].disk
    if disk is None:
        return True
    size, each = disk
    needed = each * weights_of(getattr(setup.size, size)) * 1.02 / 1e9
    free = shutil.disk_usage(setup.scratch).free / 1e9
    if needed > free:
        say(
            f"{name} is skipped: it needs {needed:.1f} GB in {setup.scratch}, "
            f"but {free:.1f} GB are free; give another --scratch"
        )
    return needed <= free


def _folder(name: str) -> str:
    last = name.rsplit("_", 1)[-1]
    return f"depth-{last}" if "_depth_" in name else _FOLDERS.get(last, "small")


def _clean(setup: Setup, name: str, left: Sequence[str]) -> None:
    folder = _folder(name)
    if folder not in {_folder(other) for other in left}:
        shutil.rmtree(Path(setup.scratch) / folder, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path | None, keep: bool) -> Iterator[str]:
    """A new folder in ``parent`` (None: the system's), removed afterwards unless ``keep``."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="wagle-bench-", dir=parent)
    try:
        yield folder
    finally:
        if keep:
            say(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def head(model: str) -> dict[str, Any]:
    """The machine and versions that the figures belong to."""
    import transformers

    return {
        "model": Path(model).name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def arguments(text: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark of this folder."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a float32 model folder; default: the demo model")
    parser.add_argument("--tofu", help="a folder with TOFU's splits; default: the demo records")
    parser.add_argument("--scratch", type=Path, help="where to make models and stores")
    parser.add_argument("--keep", action="store_true", help="keep them afterwards")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--json", type=Path, help="write the table as JSON too")
    return parser


def run(asked: argparse.Namespace, rows: Sequence[str]) -> list[Line]:
    """Measure ``rows`` as the options say; print the table and write the JSON."""
    for name in rows:
        choose(ROWS, name, "row")
    model = asked.model or str(demo_model())
    about = head(model)
    with scratch_folder(asked.scratch, asked.keep) as scratch:
        setup = Setup(model, asked.tofu, scratch, asked.scale)
        lines = measure(rows, setup, keep=asked.keep)
    print("  ".join(f"{name} {value}" for name, value in about.items()))
    for line in lines:
        print(line.text())
    if asked.json is not None:
        found = {"about": about, "lines": [line._asdict() for line in lines]}
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    return lines


def main(options: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="names, separated by commas")
    asked = parser.parse_args(options)
    try:
        run(asked, asked.rows.split(","))
    except WagleError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
