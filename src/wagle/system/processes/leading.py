"""Leading and following: one process runs the program, the others do their part of heavy work.

A command runs on rank 0 alone: it owns the folder, the lock, the log and the terminal. Functions
worth sharing go through ``together``: rank 0 sends what to do and with which arguments to the
others, which wait for it, and all do it at the same time. In a program of one's own that
torchrun starts, nobody leads: every process calls the same functions, and ``together`` only calls.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from wagle.system.errors import Stopped, WagleError
from wagle.system.processes import group

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
_PATIENCE = timedelta(seconds=10)  # an error of all processes reaches rank 0 within this time


class Unsendable(WagleError):
    """Something cannot travel to the other processes."""


class _Lead:
    """Whether rank 0 leads, whether common work is going on, and how much there has been."""

    on = False
    busy = False
    tasks = 0
    broken = False  # the others are somewhere in the middle of common work


def together(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Call a function on all processes with the arguments of the one that leads.

    Tensors travel as they are, without being copied into a message; whatever belongs to rank 0
    alone, such as an open file, says in ``__reduce__`` what stands for it elsewhere. Inside such
    work, another call is this process's own.
    """
    if not group.several() or not _Lead.on:
        return work(*args, **named)
    if _Lead.busy:
        with group.alone():
            return work(*args, **named)
    with group.everyone():
        _send((work, args, named))
        try:
            with _working(), group.noticing_losses():
                return work(*args, **named)
        except BaseException as error:
            _Lead.broken = not _all_back(error)
            raise


@contextlib.contextmanager
def _working() -> Iterator[None]:
    """Common work, on any process."""
    _Lead.busy = True
    _Lead.tasks += 1
    try:
        yield
    finally:
        _Lead.busy = False


def _all_back(error: BaseException) -> bool:
    """Whether the others have raised an error too, and wait for what comes next."""
    if getattr(error, "everywhere", False):
        return True
    if not isinstance(error, WagleError) or isinstance(error, group.Lost):
        return False
    group.tell(_key(), str(error))
    others = range(1, int(os.environ["WORLD_SIZE"]))
    return all(group.told(f"{_key()}-{rank}", _PATIENCE) is not None for rank in others)


def _key() -> str:
    return f"wagle-error-{_Lead.tasks}"


def lead(program: Callable[[], None]) -> None:
    """Run a program on rank 0, while the other processes follow; on one process, just run it.

    The others end as it ends: with its exit code, and without a word of their own.
    """
    if not group.several():
        program()
        return
    _Lead.on = True
    group.put_up_board()
    if not group.main_process():
        raise SystemExit(_follow())
    code: Any = 1
    try:
        with group.alone():
            program()
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        if not _Lead.broken:
            _dismiss(code)


def _follow() -> int:
    """Do what rank 0 asks for until it ends; returns its exit code."""
    logging.getLogger("wagle").setLevel(logging.CRITICAL)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # rank 0 decides what they mean
        signal.signal(name, signal.SIG_IGN)
    while True:
        try:
            task = _receive()
            if isinstance(task, int):
                group.leave()
                return task
            work, args, named = task
            with _working(), group.noticing_losses():
                work(*args, **named)
            del work, args, named
        except group.Lost:  # whoever ended has said why
            os._exit(1)
        except Stopped:
            pass  # so has rank 0
        except WagleError as error:
            if error.everywhere:
                continue
            if group.told(_key(), _PATIENCE) == str(error):
                group.tell(f"{_key()}-{group.rank()}", "")
            else:
                sys.stderr.write(f"wagle: process {group.rank()}: {error}\n")
                sys.stderr.flush()
                os._exit(2)  # rank 0 goes on without knowing; this ends it


def _dismiss(code: Any) -> None:
    """Let the others end, if they still listen."""
    with contextlib.suppress(WagleError, RuntimeError), group.everyone():
        _send(code if isinstance(code, int) else int(code is not None))
        group.leave()


@dataclass
class Handed(Generic[T]):
    """An argument that its receiver takes over: no frame on the way keeps it alive."""

    value: T | None

    def take(self) -> T | None:
        """The value; it is no longer here afterwards."""
        value, self.value = self.value, None
        return value


class Known(Generic[T]):
    """An argument that the others may have from the last message: it travels only if they do not.

    Args:
        key: what it is, such as the fingerprint of a model.
        value: it.
    """

    there: ClassVar[tuple[str, Any] | None] = None  # on rank 0 and on the others, the last one
    met: ClassVar[bool] = False  # whether the message at hand has one

    def __init__(self, key: str, value: T) -> None:
        self.key, self.value = key, value

    def __reduce__(self) -> tuple[Any, ...]:
        Known.met = True
        if Known.there is not None and Known.there[0] == self.key:
            return _recalled, ()
        Known.there = (self.key, None)
        return _met, (self.key, self.value)


def _met(key: str, value: T) -> Known[T]:
    Known.met, Known.there = True, (key, value)
    return Known(key, value)


def _recalled() -> Known[Any]:
    Known.met = True
    assert Known.there is not None
    return Known(*Known.there)


@dataclass(frozen=True)
class ToldToMain:
    """A callback that belongs to the process that leads; where others call it, nothing happens."""

    function: Callable[..., None] | None

    def __call__(self, *args: Any) -> None:
        if self.function is not None:
            with group.alone():
                self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return ToldToMain, (None,)


@dataclass(frozen=True)
class AnsweredByMain(Generic[T]):
    """A function that only rank 0 calls, without the others; all of them get what it returns."""

    function: Callable[..., T] | None

    def __call__(self, *args: Any) -> T:
        return group.from_main(group.agreed(partial(self._answer, args)))  # type: ignore[return-value]

    def _answer(self, args: Any) -> T | None:
        if not group.main_process() or self.function is None:
            return None
        with group.alone():
            return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return AnsweredByMain, (None,)


# ---------------------------------------------------------------------------------------------
# Messages


class _Packer(pickle.Pickler):
    """Leaves plain tensors out of a message: they travel by themselves."""

    def __init__(self, into: io.BytesIO) -> None:
        super().__init__(into)
        self.tensors: list[Tensor] = []

    def persistent_id(self, found: Any) -> int | None:
        import torch

        if type(found) is not torch.Tensor or found.requires_grad or found.is_meta:
            return None
        if found.layout != torch.strided or str(found.dtype).startswith("torch.q"):
            return None
        self.tensors.append(found)
        return len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    """Puts the tensors back."""

    def __init__(self, message: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(message))
        self.tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        return self.tensors[place]


def _send(what: Any) -> None:
    """Send a message from rank 0 to the others."""
    into = io.BytesIO()
    packer = _Packer(into)
    Known.met = False
    try:
        packer.dump(what)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        Known.there = None  # it was not sent
        raise Unsendable(
            f"this cannot be sent to the other processes ({error}); use functions and classes of an "
            "importable module, or start one process"
        ) from error
    if not Known.met:
        Known.there = None  # the others drop it, too
    about = [(tuple(t.shape), t.dtype, t.device.type) for t in packer.tensors]
    group.from_main((into.getvalue(), about))
    for tensor in packer.tensors:
        _broadcast(tensor.detach().contiguous())


def _receive() -> Any:
    """Wait for a message of rank 0."""
    import torch

    nothing: tuple[bytes, list[Any]] = (b"", [])
    message, about = group.from_main(nothing)
    tensors = []
    for shape, dtype, kind in about:
        device = group.local_device() if kind == "cuda" else torch.device(kind)
        tensors.append(_broadcast(torch.empty(shape, dtype=dtype, device=device)))
    Known.met = False
    found = _Unpacker(message, tensors).load()
    if not Known.met:
        Known.there = None
    return found


def _broadcast(tensor: Tensor) -> Tensor:
    import torch

    if tensor.numel():
        group.spread(tensor.view(-1).view(torch.uint8))
    return tensor
