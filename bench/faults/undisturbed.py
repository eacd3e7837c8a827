"""An undisturbed run: what it left when each stage began, and the points that it passed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.points import Points
from bench.faults.trying import Process, at_stages, figures, record
from wagle.run.folder import RunFolder
from wagle.run.stages.table import STAGES

OPENING = "opening"  # what comes before the first stage


@dataclass
class Undisturbed:
    """An undisturbed run, what it left when each stage began, and the points that it passed.

    Attributes:
        home: of the recipe, the snapshots and the folder that cells work in.
        recipe: the recipe's file.
        wanted: the digests of the files of the finished run.
        points: the names of the points of every stage, in order.
        seconds: of every stage.
        figures: of its evaluations, and their verdicts.
    """

    home: Path
    recipe: Path
    wanted: dict[str, str] = field(default_factory=dict)
    points: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float | str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run folder that every cell uses: paths in files are the same."""
        return self.home / "work" / "run"

    @property
    def command(self) -> list[str]:
        """The command line of every process."""
        return ["run", str(self.recipe), "--out", str(self.folder), "--no-fail"]

    def start(self, arm: Callable[[], None] | None = None, *more: str) -> Process:
        """Start a process of the run."""
        log = self.home / ("second.log" if more else "first.log")
        return Process([*self.command, *more], log, arm)

    def restore(self, stage: str | None) -> None:
        """Make the folder what it was when a stage began; None: before anything was there."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.parent.mkdir(parents=True)
        if stage is not None:
            shutil.copytree(self.home / "snapshots" / stage, self.folder)

    def make(self) -> None:
        """Make the run and keep a copy from the beginning of every stage."""
        self.restore(None)
        shutil.rmtree(self.home / "snapshots", ignore_errors=True)
        (self.home / "snapshots").mkdir()
        ended = self.start(self._watched).wait()
        if ended.code != 0:
            raise RuntimeError(f"the undisturbed run ended with {ended.code}: {ended.said}")
        self.wanted = record(self.folder)
        self.figures = figures(self.folder)
        done = RunFolder(self.folder).state["stages"]
        self.seconds = {name: done[name]["seconds"] for name in STAGES}
        self.points = {name: [] for name in (OPENING, *STAGES)}
        for line in self._list.read_text().splitlines():
            stage, _, name = line.partition("\t")
            self.points[stage].append(name)

    @property
    def _list(self) -> Path:
        return self.home / "points.txt"

    def _watched(self) -> None:
        """In the process of the undisturbed run: note every point, and copy the folder."""
        out, write = os.open(self._list, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.write
        now = OPENING

        def note(_: int, name: str) -> bool:
            write(out, f"{now}\t{name}\n".encode())
            return False

        def keep(stage: str) -> None:
            nonlocal now
            now = stage
            points.off = True
            shutil.copytree(self.folder, self.home / "snapshots" / stage)
            points.off = False

        points = Points(self.folder, note)
        at_stages(keep)
