"""Long loops: the one besides the Trainer's, the progress bar of both, and stopping between steps.

SIGTERM and SIGHUP end a process as Ctrl-C does, by an exception, but a step that has begun is
finished first, so that it can be kept. Only the command line asks for this.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from wagle.system.errors import Stopped
from wagle.system.processes.group import main_process

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


_asked: list[int] = []  # the signals that asked this process to end
_steps = 0  # how many steps that are to be finished first it is in


def heed_signals() -> None:
    """End by ``Stopped`` on SIGTERM and SIGHUP, unless they are ignored (as under nohup)."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _ask)


def _ask(number: int, _: object) -> None:
    _asked.append(number)
    if not _steps:
        raise Stopped


def asked_to_stop() -> int | None:
    """The signal that asked this process to end, or None."""
    return _asked[0] if _asked else None


def stop_if_asked() -> None:
    """End here if a signal asked for it: nothing is lost that is not kept already."""
    if _asked:
        raise Stopped


def exit_code_of(end: KeyboardInterrupt | SystemExit) -> int | str | None:
    """How a process ends: after an interruption, of which a line tells, by 128 and the signal."""
    interrupted = 128 + signal.SIGINT
    if isinstance(end, SystemExit) and end.code != interrupted:
        return end.code
    sys.stderr.write("wagle: stopped; the same command resumes from here\n")
    return 128 + _asked[0] if _asked else interrupted


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """A step that a signal does not interrupt: the process ends after it, or where it says so."""
    global _steps
    _steps += 1
    try:
        yield
    finally:
        _steps -= 1
    if not _steps:
        stop_if_asked()


class Bar:
    """A progress bar on stderr with figures; silent without a terminal and on other processes."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        if main_process() and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(self.what, total=self.total, figures="")
        return self

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Advance by ``steps`` and show ``figures`` next to the bar."""
        if self._progress is None:
            return
        self._progress.advance(self._task, steps)
        if figures:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self._progress.update(self._task, figures=shown)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


def track(items: Sequence[T], what: str, *, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """Iterate over ``items`` with a progress bar; ``size`` says how much one item counts.

    A signal to end takes effect between two items.
    """
    with Bar(what, sum(size(item) for item in items)) as bar:
        for item in items:
            with finishing():
                yield item
            bar.advance(size(item))
