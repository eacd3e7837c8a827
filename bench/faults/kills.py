"""Random kills at named points of a whole run, errors injected at others, and a real full disk."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.faults.matrix import FILLS, Cell, Trial, fail_at, refuse
from bench.faults.undisturbed import OPENING
from wagle.run.stages.table import STAGES

HOW = {"kill": 25, "ENOSPC": 10, "EIO": 10, "tmpfs": 5}  # what, and how often
_SMALL, _LARGE = 1 << 17, 3 << 19  # bytes of a real disk: a tiny run takes about 2 MB


def die() -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def draw_points(trial: Trial, what: str) -> list[tuple[str, int, str]]:
    """Points of the whole run, drawn without repeats: stage, number in it, and name."""
    points = [
        (stage, number, name)
        for stage in (OPENING, *STAGES)
        for number, name in enumerate(trial.run.points[stage], 1)
        if what != "ENOSPC" or name.partition(" ")[0] in FILLS
    ]
    return random.Random(f"{trial.seed} {what}").sample(points, HOW[what])


def at_point(trial: Trial, what: str, stage: str, number: int, name: str) -> Cell:
    """A process that is killed or fails at a point, and the same command again."""
    began, cell = time.monotonic(), Cell(stage, what, name)
    run = trial.run
    run.restore(None if stage == OPENING else stage)
    act, wanted, many = {
        "kill": (die, -signal.SIGKILL, None),
        "ENOSPC": (refuse(errno.ENOSPC), 2, FILLS),
        "EIO": (refuse(errno.EIO), 2, None),
    }[what]
    ended = run.start(lambda: fail_at(run.folder, stage, number, act, many)).wait()
    trial.judge(cell, ended, wanted)
    cell.seconds = round(time.monotonic() - began, 2)
    return cell


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A disk of its own in a folder, if this machine allows it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    allowed = (
        shutil.which("mount") is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", str(folder)], check=True)


def on_small_disk(trial: Trial, number: int) -> Cell:
    """A run on a real disk that is too small, which is then made larger."""
    began, run = time.monotonic(), trial.run
    size = random.Random(f"{trial.seed} tmpfs {number}").randrange(_SMALL, _LARGE)
    cell = Cell("", "tmpfs", f"{size} bytes")
    run.restore(None)
    with mounted(run.folder.parent, f"size={size}") as allowed:
        if not allowed:
            cell.outcome = "this machine mounts nothing"
            return cell
        ended = run.start().wait()
        subprocess.run(["mount", "-o", "remount,size=64m", str(run.folder.parent)], check=True)
        trial.judge(cell, ended, 2)
    cell.seconds = round(time.monotonic() - began, 2)
    return cell


def read_only(trial: Trial, *, finished: bool) -> Cell:
    """A finished run on a read-only disk prints its table; a new one is refused in a line."""
    run = trial.run
    cell = Cell("", "read-only disk", "finished run" if finished else "new run")
    run.restore(None)
    with mounted(run.folder.parent, "size=64m") as allowed:
        if not allowed:
            cell.outcome = "this machine mounts nothing"
            return cell
        if finished:
            run.start().wait()
        subprocess.run(["mount", "-o", "remount,ro", str(run.folder.parent)], check=True)
        ended = run.start().wait()
        subprocess.run(["mount", "-o", "remount,rw", str(run.folder.parent)], check=True)
        printed = "verdict" in ended.said
        if finished and not printed:
            cell.outcome = f"no table: {ended.said[-300:]}"
            return cell
        trial.judge(cell, ended, 0 if finished else 2)
    return cell


def tries(trial: Trial) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Everything that is tried, by name."""
    for what in ("kill", "ENOSPC", "EIO"):
        for number, point in enumerate(draw_points(trial, what)):
            yield f"{what} {number}", lambda w=what, p=point: at_point(trial, w, *p)
    for number in range(HOW["tmpfs"]):
        yield f"tmpfs {number}", lambda n=number: on_small_disk(trial, n)
    for finished in (True, False):
        name = "read-only, finished" if finished else "read-only, new"
        yield name, lambda f=finished: read_only(trial, finished=f)


def summary(known: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Of every kind of try, how many came to a good end, and how many there were."""
    found: dict[str, tuple[int, int]] = {}
    for cell in known.values():
        good, of = found.get(cell["fault"], (0, 0))
        found[cell["fault"]] = (good + (cell["outcome"] == "same hash"), of + 1)
    return found
