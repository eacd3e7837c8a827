"""Work on a model in step: every block is read once for all jobs that are on their way through it.

Each job has a thread, but only one of them runs at a time, until it reaches a block: there it waits
until all the others wait too or have ended. Then the block that comes next is computed for all that
wait for it, in the thread that called ``in_step``. Jobs therefore need no locks among themselves,
and what they compute between two blocks (logits, a loss) exists once at a time.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch

T = TypeVar("T")
MOST = 64  # jobs under way at once; more would amortise the reading no further


class Cancelled(BaseException):
    """Ends a job because another one failed; no error handler of the job should catch it."""


@dataclass
class Visit:
    """A job's arrival at a block.

    Attributes:
        block: which.
        run: computes the block for this job; its weights must be there.
        done: whether it has been computed.
        found: what the block returned.
        error: or what it raised.
    """

    block: int
    run: Callable[[], Any]
    done: bool = False
    found: Any = None
    error: BaseException | None = None

    def compute(self) -> None:
        """Compute the block for this job; its weights are there."""
        try:
            self.found = self.run()
        except Exception as error:  # noqa: BLE001 - the job raises it
            self.error = error
        self.done = True


class Visited(Protocol):
    """What has blocks that can be visited."""

    def serve(self, block: int, visits: Sequence[Visit], *, more: bool) -> None:
        """Compute a block for these visits; ``more`` says whether other jobs are elsewhere."""


@dataclass
class _Job(Generic[T]):
    work: Callable[[], T]
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None
    visit: Visit | None = None
    found: T | None = None
    error: BaseException | None = None
    cancelled: bool = False
    ended: bool = False


class Together(Generic[T]):
    """Jobs that go through the blocks of one model in step.

    Args:
        visited: computes the blocks.
        jobs: what each does; it calls ``arrive`` wherever it needs a block.
    """

    def __init__(self, visited: Visited, jobs: Sequence[Callable[[], T]]) -> None:
        self.visited = visited
        self.jobs = [_Job(job) for job in jobs]
        self._back = threading.Semaphore(0)  # the running job waits, or has ended
        self._running: _Job[T] | None = None
        self._by_thread: dict[int, _Job[T]] = {}
        self._last = -1
        self._around = _surroundings()

    def run(self) -> list[T]:
        """What every job returned.

        Raises:
            BaseException: what the first job that failed raised; the others are cancelled.
        """
        waiting = list(self.jobs)
        active: list[_Job[T]] = []
        try:
            while waiting or active:
                while waiting and len(active) < MOST:
                    active.append(self._go(waiting.pop(0)))
                    active = self._still(active)
                if active:
                    self._serve(active)
                    for job in active:
                        if job.visit is not None and job.visit.done:
                            self._go(job)
                    active = self._still(active)
        finally:
            self._cancel()
        return [job.found for job in self.jobs]  # type: ignore[misc]

    def arrive(self, visit: Visit) -> Any:
        """Called by a job: wait for a block, and return what it returned."""
        job = self._by_thread[threading.get_ident()]
        job.visit = visit
        self._back.release()
        job.turn.acquire()
        job.visit = None
        if job.cancelled:
            raise Cancelled
        if visit.error is not None:
            raise visit.error
        return visit.found

    def runs_here(self) -> bool:
        """Whether the calling thread is that of a job."""
        return threading.get_ident() in self._by_thread

    def _go(self, job: _Job[T]) -> _Job[T]:
        """Let a job run until it waits or ends."""
        self._running = job
        if job.thread is None:
            context = contextvars.copy_context()
            job.thread = threading.Thread(
                target=context.run, args=(self._thread, job), name="wagle-in-step", daemon=True
            )
            job.thread.start()
        else:
            job.turn.release()
        self._back.acquire()
        self._running = None
        return job

    def _thread(self, job: _Job[T]) -> None:
        self._by_thread[threading.get_ident()] = job
        try:
            with self._around():
                job.found = job.work()
        except BaseException as error:  # noqa: BLE001 - ``run`` raises it
            job.error = error
        finally:
            del self._by_thread[threading.get_ident()]
            job.ended = True
            self._back.release()

    def _still(self, active: Sequence[_Job[T]]) -> list[_Job[T]]:
        """Those that have not ended; raises what one raised."""
        for job in active:
            if job.error is not None:
                raise job.error
        return [job for job in active if not job.ended]

    def _serve(self, active: Sequence[_Job[T]]) -> None:
        """Compute the next block that is waited for, upwards and then from the first again."""
        visits = [job.visit for job in active if job.visit is not None]
        wanted = sorted({visit.block for visit in visits})
        self._last = next((block for block in wanted if block > self._last), wanted[0])
        here = [visit for visit in visits if visit.block == self._last]
        self.visited.serve(self._last, here, more=len(here) < len(visits))

    def _cancel(self) -> None:
        """End all jobs that have not ended: one that runs goes on to its next block."""
        if self._running is not None:  # the caller was interrupted while a job ran
            self._back.acquire()
            self._running = None
        for job in self.jobs:
            if job.thread is None:
                continue
            while not job.ended:
                job.cancelled = True
                self._go(job)
            job.thread.join()


def _surroundings() -> Callable[[], Any]:
    """What torch keeps per thread, as it is here: gradients on or off, inference mode, autocast."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    casts = autocasts()

    @contextmanager
    def around() -> Iterator[None]:
        with ExitStack() as stack:
            if inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(casts())
            yield

    return around


def autocasts() -> Callable[[], Any]:
    """A context that brings back the autocast of now, for the CPU and a GPU."""
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    states = [
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds
    ]

    @contextmanager
    def casts() -> Iterator[None]:
        with ExitStack() as stack:
            for kind, enabled, dtype in states:
                if enabled or torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, dtype, enabled=enabled))
            yield

    return casts
