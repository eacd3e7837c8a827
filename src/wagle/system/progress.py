"""The one long loop besides the Trainer's, and the progress bar that both share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from wagle.system.processes.group import main_process

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


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
    """Iterate over ``items`` with a progress bar; ``size`` says how much one item counts."""
    with Bar(what, sum(size(item) for item in items)) as bar:
        for item in items:
            yield item
            bar.advance(size(item))
