"""Running mutants: in worker processes, each mutant with limits of time and memory.

A worker takes many mutants one after the other. One that it does not survive is put down to the
mutant that it had reached, and another worker goes on behind it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bench.fuzzing.kind import Kind
from bench.fuzzing.kinds import KINDS

SECONDS, BYTES = 5.0, 1 << 30  # of processor time, and of growth: the most for one mutant
_CLOCK = 4.0  # times as long by the clock, since other processes take their share
_HANGS = 60.0  # seconds without a mutant's end, after which its worker is ended
_ROOM = 4 << 30  # bytes of address space beyond those that are mapped when a worker starts
_KEPT = 200  # failures of a kind that are kept word for word
GOOD = ("ok", "refused")


class TooLong(BaseException):
    """A mutant took longer than it may; no ``except Exception`` may catch it."""


@dataclass
class Found:
    """What the mutants of one kind did.

    Attributes:
        counts: how many ended in which way: ``ok``, ``refused``, or a failure.
        failures: ``KIND:NUMBER`` and what happened, of the first ones in each way.
        slowest: seconds of the slowest mutant, and its number.
        largest: bytes by which the process grew at most, and the mutant at which it did.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[list[str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)

    def add(self, other: Found) -> None:
        """Take in what other mutants of the kind did."""
        self.counts.update(other.counts)
        self.failures = [*self.failures, *other.failures][:_KEPT]
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)


def generator(seed: int, kind: str, number: int) -> Random:
    """The source of every choice for one mutant."""
    return Random(f"{seed}:{kind}:{number}")


def run_mutants(examples: Path, kind: str, seed: int, numbers: range) -> Found:
    """Make and open the mutants of one kind with these numbers."""
    found, first = Found(), numbers.start
    while first < numbers.stop:
        part, first = _by_worker(examples, kind, seed, range(first, numbers.stop))
        found.add(part)
    return found


def _by_worker(examples: Path, kind: str, seed: int, numbers: range) -> tuple[Found, int]:
    """What one worker found, and the first number that is left."""
    context = multiprocessing.get_context("fork")  # everything is imported already
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as work:
        worker = context.Process(
            target=_work, args=(examples, Path(work), kind, seed, numbers, theirs), daemon=True
        )
        worker.start()
        theirs.close()
        found, reached, why = Found(), numbers.start - 1, "died"
        with contextlib.suppress(EOFError):
            while ours.poll(_HANGS):
                reached, more = ours.recv()
                found.add(more)
                if reached < 0:  # it came to its end, and says where the next worker begins
                    worker.join()
                    return found, -reached
            why = "hangs"
        worker.kill()
        worker.join()
    found.counts[why] += 1
    found.failures.append([f"{kind}:{reached}", f"{why} (exit code {worker.exitcode})"])
    return found, reached + 1


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _work(examples: Path, work: Path, kind: str, seed: int, numbers: range, out: Any) -> None:
    """Run mutants; before each say which one it is, and what was found since."""
    for one in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(one, _late)
    with _quietly():
        subject = KINDS[kind](examples, work)
        _warm(subject, seed, kind)
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + _ROOM, resource.RLIM_INFINITY))
        base, number = _peak(), numbers.start - 1
        found = Found()
        for number in numbers:
            out.send((number, found))
            found = _run_one(subject, seed, kind, number, base)
            if found.largest[0] > BYTES:  # the peak stays: what comes next needs a new process
                break
    out.send((-number - 1, found))


def _late(*_: object) -> None:
    raise TooLong


def _warm(subject: Kind, seed: int, kind: str) -> None:
    """Import what is imported on first use, so that no mutant is charged for it."""
    for number in range(-30, 0):
        with contextlib.suppress(Exception):
            subject.write(generator(seed, kind, number))
            subject.use()


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _run_one(subject: Kind, seed: int, kind: str, number: int, base: int) -> Found:
    started = time.process_time()
    end, told = outcome(subject, generator(seed, kind, number))
    seconds, grown = time.process_time() - started, max(0, _peak() - base)
    if seconds > SECONDS and end in GOOD:
        end, told = "too long", f"{seconds:.1f} s"
    if grown > BYTES and end in GOOD:
        end, told = "too large", f"{grown / 1e9:.2f} GB"
    failures = [] if end in GOOD else [[f"{kind}:{number}", f"{end}: {told}"]]
    return Found(Counter({end: 1}), failures, (seconds, number), (grown, number))


def outcome(subject: Kind, rng: Random) -> tuple[str, str]:
    """How a mutant ended, in a word or two, and what it said.

    ``ok``: it was opened and used; ``refused``: a one-line ``WagleError``; else a failure.
    """
    from wagle.system.errors import WagleError

    how = ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _CLOCK * SECONDS)
    try:
        how = subject.write(rng)
        subject.use()
    except WagleError as error:
        said = str(error)
        if "\n" in said or not said:
            return "not one line", f"{how}: {said!r}"
        return "refused", said
    except TooLong:
        return "too long", f"{how}: stopped{_where()}"
    except MemoryError as error:
        return "too large", f"{how}: {error!r}"
    except Exception as error:  # noqa: BLE001 - finding these is the purpose
        return f"traceback {type(error).__name__}", f"{how}: {error!r:.300}{_where()}"
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
    return "ok", how


def _where() -> str:
    """The last lines of wagle's own code in the traceback."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [frame for frame in frames if "/wagle/" in frame.filename] or list(frames)
    return "".join(f" < {Path(f.filename).name}:{f.lineno}" for f in reversed(own[-3:]))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Print and log nothing."""
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(sink):
            yield
    logging.disable(logging.NOTSET)


def replay(examples: Path, name: str, seed: int, keep: Path | None = None) -> str:
    """Run one mutant in this process, without a limit of memory; the traceback is not caught.

    Args:
        examples: the folder of examples.
        name: ``KIND:NUMBER``.
        seed: of the run that found it.
        keep: a folder for the files of the mutant; it must not exist.
    """
    kind, _, number = name.partition(":")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        subject = KINDS[kind](examples, Path(work))
        how = subject.write(generator(seed, kind, int(number)))
        if keep is not None:
            shutil.copytree(work, keep)
        print(f"{name}: {how}")
        subject.use()
    return how
