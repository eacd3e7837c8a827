"""The fault matrix: every stage of a tiny run and every fault, and what becomes of the run.

A cell starts from what an undisturbed run had left when the stage began. Its first process meets
the fault in that stage; the second is the same command again. The run must then be the undisturbed
one, file by file, and whatever the first process said must be one line.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.faults.peers import LOST, PATIENCE, two_processes
from bench.faults.points import CUT, Points
from bench.faults.trying import Ended, at_stages, close, differing, figures, record
from bench.faults.undisturbed import OPENING, Undisturbed
from wagle.run.folder import RunFolder
from wagle.run.integrity.seals import inspect_run

SIGNALS = {
    "kill -9": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGHUP": signal.SIGHUP,
}
ERRORS = {"disk full": errno.ENOSPC, "I/O error": errno.EIO, "read-only": errno.EROFS}
DAMAGED, SECOND, PEER = "damaged input", "second process", "peer rank killed"
FAULTS = (*SIGNALS, *ERRORS, DAMAGED, SECOND, PEER)
_EVERY = ("write", "serialize", "copy", "mkdir", "open", "replace", "rename", "unlink", "rmdir")
GOOD = ("same hash", "same figures")
FILLS = ("write", "serialize", "copy", "mkdir", "open", "fsync")  # what a full disk refuses
_ALL = "private/gradients/*.safetensors"
INPUTS = {  # a file that a stage reads; one outside the run begins with a slash
    "teach": "/tiny/model.safetensors",
    "retrain": "/tiny/model.safetensors",
    "neighbours": "base/model.safetensors",
    "reference": "retrained/model.safetensors",
    "before": "evaluation/reference.json",
    "gradients": "private/retain.json",
    "mask": _ALL,
    "unlearn": "mask.safetensors",
    "patch": "base/model.safetensors",
    "deploy": "model/model.safetensors",
    "after": "evaluation/before.json",
    "attacks": "model/model.safetensors",
    "controls": _ALL,
    "ledger": "patch.safetensors",
    "report": "attacks/quantization.json",
}


@dataclass
class Cell:
    """One stage and one fault.

    Attributes:
        stage: in which the first process met the fault.
        fault: what it met.
        where: the point, the share of the stage's time, or the file.
        code: the exit code of the first process; minus the signal that killed it.
        line: the one line that it ended with, if it did.
        outcome: ``same hash``, ``same figures`` where two processes computed a part, or what went
            wrong.
        seconds: of both processes.
    """

    stage: str
    fault: str
    where: str = ""
    code: int | None = None
    line: str | None = None
    outcome: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        return self.outcome in GOOD


# ----- faults -----


def fail_at(
    folder: Path, stage: str, number: int, what: Callable[[], None], many: tuple[str, ...] | None
) -> None:
    """In a process of a run: have points of a stage fail.

    Args:
        folder: the run folder.
        stage: where to count from; the points before the first stage have the name ``OPENING``.
        number: of the first point that fails.
        what: how: it raises, or kills.
        many: the kinds of points that fail from then on; None: only that one.
    """
    start = 0 if stage == OPENING else None

    def act(passed: int, name: str) -> bool:
        if passed < 0:  # halfway through a write
            what()
        if start is None or passed - start < number:
            return False
        kind = name.partition(" ")[0]
        if (many is None and passed - start > number) or (many is not None and kind not in many):
            return False
        if kind in CUT:
            return True
        what()
        return False

    def begin(name: str) -> None:
        nonlocal start
        if name == stage:
            start = len(points.names)

    points = Points(folder, act)
    at_stages(begin)


def refuse(number: int) -> Callable[[], None]:
    """What raises the error of a number, as the system would."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


@dataclass
class Trial:
    """How cells are tried.

    Attributes:
        run: the undisturbed run.
        seed: of the draws.
    """

    run: Undisturbed
    seed: int = 0

    def cell(self, stage: str, fault: str) -> Cell:
        """Try one cell."""
        cell, began = Cell(stage, fault), time.monotonic()
        draw = random.Random(f"{self.seed} {stage} {fault}")
        how = {DAMAGED: self._damaged, SECOND: self._second, PEER: self._peer}
        if fault in SIGNALS:
            self._signalled(cell, draw)
        elif fault in ERRORS:
            self._failed(cell, draw)
        else:
            how[fault](cell, draw)
        cell.seconds = round(time.monotonic() - began, 2)
        return cell

    def _signalled(self, cell: Cell, draw: random.Random) -> None:
        """Send a signal somewhere in the stage: a stage that was faster is tried again, sooner."""
        number = SIGNALS[cell.fault]
        share = draw.uniform(0.1, 0.8)
        for _ in range(8):
            self.run.restore(cell.stage)
            read, write = os.pipe()
            process = self.run.start(lambda w=write: at_stages(lambda n: self._tell(n, cell, w)))
            os.close(write)
            os.read(read, 1)  # until the stage begins
            os.close(read)
            time.sleep(share * self.run.seconds[cell.stage])
            process.send(number)
            ended = process.wait()
            if cell.stage not in RunFolder(self.run.folder).state["stages"]:
                break
            share /= 2
        cell.where = f"{share:.2f} of the stage"
        wanted = -number if number == signal.SIGKILL else 128 + number
        self.judge(cell, ended, wanted)

    @staticmethod
    def _tell(name: str, cell: Cell, write: int) -> None:
        if name == cell.stage:
            os.write(write, b"!")

    def _failed(self, cell: Cell, draw: random.Random) -> None:
        """Have a write, sync, rename or removal of the stage fail, and perhaps all after it."""
        number = ERRORS[cell.fault]
        many = {errno.ENOSPC: FILLS, errno.EROFS: _EVERY, errno.EIO: None}[number]
        points = self.run.points[cell.stage]
        able = [i for i, n in enumerate(points, 1) if many is None or n.partition(" ")[0] in many]
        at = draw.choice(able)
        cell.where = points[at - 1]
        self.run.restore(cell.stage)
        ended = self.run.start(
            lambda: fail_at(self.run.folder, cell.stage, at, refuse(number), many)
        ).wait()
        self.judge(cell, ended, 2)

    def _damaged(self, cell: Cell, draw: random.Random) -> None:
        """Flip a byte of a file that the stage reads, under the same size and time; put it back."""
        self.run.restore(cell.stage)
        name = INPUTS[cell.stage]
        home = self.run.home if name.startswith("/") else self.run.folder
        path = draw.choice(sorted(home.glob(name.lstrip("/"))))
        whole, told = path.read_bytes(), path.stat()
        at = 4 if cell.stage == "teach" else draw.randrange(len(whole))  # else a good other model
        data = bytearray(whole)
        data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        cell.where = f"byte {at} of {path.relative_to(home)}"
        try:
            ended = self.run.start().wait()
        finally:
            path.write_bytes(whole)
            os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        self.judge(cell, ended, 2)

    def _second(self, cell: Cell, _: random.Random) -> None:
        """Start another process in the folder while the first is in the stage."""
        self.run.restore(cell.stage)
        began, wait = os.pipe(), os.pipe()

        def hold(name: str) -> None:
            if name == cell.stage:
                os.write(began[1], b"!")
                os.read(wait[0], 1)

        process = self.run.start(lambda: at_stages(hold))
        os.read(began[0], 1)
        recipe = (self.run.folder / "recipe.yaml").read_bytes()
        second = self.run.start(None, "seed=7").wait()
        kept = (self.run.folder / "recipe.yaml").read_bytes() == recipe
        os.write(wait[1], b"!")
        first = process.wait()
        for handle in (*began, *wait):
            os.close(handle)
        cell.where = "seed=7 while the first was in the stage"
        self.judge(cell, second, 2)
        if first.code != 0 or not kept:
            cell.outcome = f"the first process ended with {first.code}, recipe kept: {kept}"

    def _peer(self, cell: Cell, draw: random.Random) -> None:
        """Run on two processes, and kill the second one while the first is in the stage."""
        self.run.restore(cell.stage)
        share = draw.uniform(0, 0.6)
        ended, seconds = two_processes(self.run, cell.stage, share)
        cell.where = f"{share:.2f} of the stage; rank 0 ended {seconds:.1f} s later"
        alone = ended.code == 0  # nothing that was left needed the other
        if ended.code == 2 and seconds > PATIENCE:
            ended = Ended(ended.code, ended.said, hung=True)
        self.judge(cell, ended, 0 if alone else 2)
        if not alone and LOST not in ended.said:
            cell.outcome = f"ended for another reason: {ended.said[-300:]}"

    def judge(self, cell: Cell, ended: Ended, wanted: int) -> None:
        """Run the command again, and compare what there is then with the undisturbed run."""
        cell.code, cell.line = ended.code, ended.line
        if cell.line is not None:
            cell.line = cell.line.replace(str(self.run.home), "")
        again = self.run.start().wait()
        if ended.hung or again.hung:
            cell.outcome = "hung"
        elif ended.code not in (wanted, 0 if cell.fault == "EIO" else wanted):
            cell.outcome = f"ended with {ended.code} instead of {wanted}: {ended.said[-300:]}"
        elif ended.code > 0 and ended.line is None:
            cell.outcome = f"more than a line: {ended.said[-300:]}"
        elif again.code != 0:
            cell.outcome = f"lost: {again.said[-300:]}"
        else:
            other = differing(record(self.run.folder), self.run.wanted)
            found = inspect_run(self.run.folder).findings
            if not other and not found:
                cell.outcome = "same hash"
            elif (
                cell.fault == PEER
                and not found
                and close(figures(self.run.folder), self.run.figures)
            ):
                cell.outcome = "same figures"  # a part was computed by two: not to the last bit
            else:
                cell.outcome = f"differs: {other[:3]} {found[:3]}"
