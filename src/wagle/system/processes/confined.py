"""Calling a function that strangers' files drive: in a process of its own, with limits.

The process is a fork: it starts in milliseconds and computes exactly what this one would. It ends
when it was idle for half a second, so it does not hold on to memory that this process changes, and
is then started again where it is needed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

_HEAD = struct.Struct("<Q")  # before each message: its length in bytes
_LONGEST = 60.0  # seconds by the clock; a process that computes meets its limit sooner


class Failed(Exception):
    """The call ended without a result.

    Attributes:
        reason: what happened, in a line.
        kinds: the names of the exception's class and its bases; empty if a limit was met.
    """

    def __init__(self, reason: str, kinds: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.kinds = reason, kinds


class Limits(NamedTuple):
    """What one call may take.

    Attributes:
        seconds: processor time, in whole seconds.
        memory: bytes besides what this process holds when the other is started.
        answer: bytes of the result, as JSON.
        idle: seconds after which the process ends if nothing is asked.
    """

    seconds: int = 2
    memory: int = 1 << 29
    answer: int = 1 << 24
    idle: float = 0.5


class _Process(NamedTuple):
    """A running process: its number, who started it, and the pipes to and from it."""

    pid: int
    parent: int
    ask: int
    told: int


class Confined:
    """A function from JSON to JSON, called in a process of its own.

    What the function changes is lost; what it sees is this process as it was when the other began.
    """

    def __init__(self, function: Callable[[Any], Any], limits: Limits | None = None) -> None:
        self._function, self.limits = function, limits or Limits()
        self._lock = threading.Lock()
        self._running: _Process | None = None

    def __call__(self, asked: Any) -> Any:
        """The result of the function.

        Raises:
            Failed: it raised an exception, or met a limit.
        """
        text = json.dumps(asked).encode()
        with self._lock:
            answer = self._exchange(text) or self._exchange(text)  # it may just have gone idle
        if answer is None:
            raise Failed("it could not be started")
        found = json.loads(answer)
        if "reason" in found:
            raise Failed(found["reason"], tuple(found["kinds"]))
        return found["result"]

    def close(self) -> None:
        """End the process, if one runs."""
        if self._running is not None and self._running.parent == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running.pid, signal.SIGKILL)
        self._ended()

    def _exchange(self, text: bytes) -> bytes | None:
        """Ask and wait for the answer; None if the process had ended before it was asked."""
        if self._running is None or self._running.parent != os.getpid():
            self._running = self._start()
        deadline = time.monotonic() + _LONGEST
        try:
            _send(self._running.ask, text)
            head = _receive(self._running.told, _HEAD.size, deadline)
            answer = head and _receive(self._running.told, _HEAD.unpack(head)[0], deadline)
        except BrokenPipeError:
            answer = b""
        except TimeoutError:
            self.close()
            raise Failed(f"it took longer than {_LONGEST:.0f} seconds") from None
        except BaseException:
            self.close()
            raise
        if answer:
            return answer
        status = self._ended()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
            raise Failed(f"it took longer than {self.limits.seconds} seconds")
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
            raise Failed("it ended its process")
        return None

    def _start(self) -> _Process:
        (theirs, ask), (told, answer) = os.pipe(), os.pipe()
        with warnings.catch_warnings():  # of threads: the new process uses nothing of theirs
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                _serve(self._function, self.limits, theirs, answer)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(answer)
        return _Process(pid, os.getpid(), ask, told)

    def _ended(self) -> int:
        """The status of the process, which is ending."""
        running, self._running = self._running, None
        if running is None:
            return 0
        for handle in (running.ask, running.told):
            os.close(handle)
        try:
            return os.waitpid(running.pid, 0)[1] if running.parent == os.getpid() else 0
        except ChildProcessError:  # whoever waits for any process was told
            return 0


def _send(handle: int, text: bytes) -> None:
    view = memoryview(_HEAD.pack(len(text)) + text)
    while view:
        view = view[os.write(handle, view) :]


def _receive(handle: int, size: int, deadline: float) -> bytes:
    """Exactly ``size`` bytes; fewer if the other side ended."""
    parts, ready = [], select.poll()
    ready.register(handle, select.POLLIN)
    while size:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(1000 * left):
            raise TimeoutError
        part = os.read(handle, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# ---------------------------------------------------------------------------------------------
# In the other process


def _serve(function: Callable[[Any], Any], limits: Limits, theirs: int, answer: int) -> None:
    """Answer requests until none comes for a while."""
    gc.freeze()  # objects of the first process are not to be finalised here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    _let_go({theirs, answer})
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, held + limits.memory)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    patience = _LONGEST  # the first request is on its way
    with contextlib.suppress(TimeoutError):
        while head := _receive(theirs, _HEAD.size, time.monotonic() + patience):
            patience = limits.idle
            text = _receive(theirs, _HEAD.unpack(head)[0], time.monotonic() + _LONGEST)
            used = resource.getrusage(resource.RUSAGE_SELF)
            spent = int(used.ru_utime + used.ru_stime)
            _limit(resource.RLIMIT_CPU, spent + 1 + limits.seconds)
            _send(answer, _answer(function, text, limits))


def _let_go(kept: set[int]) -> None:
    """Close every file of the first process: its peers would wait for this one to end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _limit(what: int, most: int) -> None:
    """Lower the soft limit, so that it can be raised again for the next request."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(function: Callable[[Any], Any], text: bytes, limits: Limits) -> bytes:
    try:
        made = json.dumps({"result": function(json.loads(text))}).encode()
        if len(made) <= limits.answer:
            return made
        failed = {"reason": f"it makes more than {limits.answer >> 20} MB of text", "kinds": []}
    except MemoryError:
        failed = {"reason": f"it takes more than {limits.memory >> 20} MB of memory", "kinds": []}
    except Exception as error:  # noqa: BLE001 - whatever it is, the first process tells it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kinds = [kind.__name__ for kind in type(error).__mro__]
        failed = {"reason": lines[0][:300], "kinds": kinds}
    return json.dumps(failed).encode()
