"""The processes that work together, and what they tell one another.

Every function here is a no-op, or gives what one process would get, unless torchrun started several.
All of them must be called by all processes, in the same order.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from wagle.system.errors import WagleError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # one that died closes its connections; a slow one is waited for
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_LOST = "another process has ended, so this one stops too; the same command resumes from here"
_WIRE = 1 << 26  # bytes that travel at a time
_BUCKET = 1 << 22  # smaller tensors travel together up to this size: each message takes its time


class _State:
    """Whether this process works by itself for the moment, and where texts are left."""

    alone = 0
    board: Any = None


def main_process() -> bool:
    """Whether this is the process that reports to the user and writes files: rank 0."""
    return _number() == 0


def several() -> bool:
    """Whether torchrun started more than one process."""
    return _size() > 1


def world() -> int:
    """How many processes take part in what is being done now; 1 inside ``alone``."""
    return 1 if _State.alone or not several() else _joined().get_world_size()


def rank() -> int:
    """The number of this process among those that take part, from 0."""
    return 0 if world() == 1 else _number()


@contextmanager
def alone() -> Iterator[None]:
    """Work without the other processes: inside, there is only this one."""
    _State.alone += 1
    try:
        yield
    finally:
        _State.alone -= 1


@contextmanager
def everyone() -> Iterator[None]:
    """Work with the other processes again, inside ``alone``."""
    before, _State.alone = _State.alone, 0
    try:
        yield
    finally:
        _State.alone = before


@contextmanager
def unseen() -> Iterator[None]:
    """Hide from libraries that this process is one of several; they would split the work too."""
    world()  # join them while it can be seen how many there are
    device = local_device()
    hidden = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
    if "LOCAL_RANK" not in hidden:
        yield
        return
    try:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
        yield
    finally:
        del os.environ["ACCELERATE_TORCH_DEVICE"]
        os.environ.update(hidden)


def local_device() -> torch.device:
    """Where this process computes: its own GPU, or the CPU if there is none."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", number % torch.cuda.device_count())


# ---------------------------------------------------------------------------------------------
# What the processes tell one another


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks, on every one of them."""
    size = world()
    if size == 1:
        return [value]
    found: list[Any] = [None] * size
    with _peers():
        _joined().all_gather_object(found, value)
    return found


def from_main(value: T) -> T:
    """The value of rank 0, on every process."""
    if world() == 1:
        return value
    found: list[Any] = [value]
    with _peers():
        _joined().broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[no-any-return]


def add_up(tensor: Tensor) -> Tensor:
    """Sum a contiguous tensor over all processes, in place; every one gets the same bits."""
    if world() > 1:
        with _peers():
            for part in tensor.view(-1).split(_WIRE // tensor.element_size()):
                _joined().all_reduce(part)
    return tensor


def add_up_all(tensors: Sequence[Tensor]) -> None:
    """Sum many contiguous tensors of one dtype over all processes, in place; small ones together."""
    import torch

    if world() == 1:
        return
    some: list[Tensor] = []
    for tensor in (*tensors, None):
        full = sum(t.nbytes for t in some) + (0 if tensor is None else tensor.nbytes) > _BUCKET
        if some and (full or tensor is None):
            joined = add_up(torch.cat([t.view(-1) for t in some]) if some[1:] else some[0])
            if some[1:]:
                for own, part in zip(some, joined.split([t.numel() for t in some]), strict=True):
                    own.view(-1).copy_(part)
            some = []
        if tensor is not None:
            some.append(tensor)


def spread(tensor: Tensor, owner: int = 0) -> Tensor:
    """Give every process the content of one's contiguous tensor, in place."""
    if world() > 1:
        with _peers():
            for part in tensor.view(-1).split(_WIRE // tensor.element_size()):
                _joined().broadcast(part, src=owner)
    return tensor


def add_up_on(tensor: Tensor, owner: int) -> None:
    """Sum a contiguous tensor over all processes, in place, on one of them; elsewhere it is spoilt."""
    with _peers():
        for part in tensor.view(-1).split(_WIRE // tensor.element_size()):
            _joined().reduce(part, owner)


def in_turn(part: Tensor, size: int) -> Iterator[Tensor]:
    """The processes' flat parts in the order of their ranks, ``size`` elements at a time, on all."""
    counts = gather(part.numel())
    for owner, count in enumerate(counts):
        for at in range(0, count, size):
            piece = part[at : at + size] if owner == rank() else None
            if piece is None:
                piece = part.new_empty(min(size, count - at))
            with _peers():
                _joined().broadcast(piece.contiguous(), src=owner)
            yield piece


def to_main(part: Tensor, sizes: Sequence[int]) -> Tensor | None:
    """Join the processes' flat parts, whose sizes all know, on rank 0; None elsewhere."""
    import torch

    if world() == 1:
        return part
    with _peers():
        if rank() > 0:
            for piece in part.contiguous().split(_WIRE // part.element_size()):
                _joined().send(piece, 0)
            return None
        found = torch.empty(sum(sizes), dtype=part.dtype)
        places = found.split(list(sizes))
        places[0].copy_(part)
        for sender, place in enumerate(places[1:], 1):
            for piece in place.split(_WIRE // part.element_size()):
                _joined().recv(piece, sender)
        return found


def wait() -> None:
    """Wait until every process has come this far."""
    if world() > 1:
        with _peers():
            _joined().barrier()


def agreed(work: Callable[[], T]) -> T:
    """Do something on every process; if it fails on one, all of them raise that error."""
    if world() == 1:
        return work()
    found: Any = None
    error: WagleError | None = None
    try:
        found = work()
    except WagleError as problem:
        error = problem
    for one in gather(error):
        if one is not None:
            one.everywhere = True
            raise one
    return found  # type: ignore[no-any-return]


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list: every n-th item."""
    return items[rank() :: world()]


def tell(name: str, text: str) -> None:
    """Leave a text for the other processes, whatever they are doing."""
    _State.board.set(name, text)


def told(name: str, patience: timedelta) -> str | None:
    """A text that a process left; None if none comes in time."""
    end = time.monotonic() + patience.total_seconds()
    while not _State.board.check([name]):
        if time.monotonic() > end:
            return None
        time.sleep(0.05)
    return bytes(_State.board.get(name)).decode()


def put_up_board() -> None:
    """Make the place where processes leave texts."""
    store = _joined().TCPStore
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    if main_process():
        _State.board = store(host, 0, is_master=True, wait_for_workers=False)
        from_main(_State.board.port)
    else:
        _State.board = store(host, from_main(0), is_master=False)


# ---------------------------------------------------------------------------------------------
# Joining


def _group() -> Any:
    """``torch.distributed``, if somebody in this process has set it up."""
    found: Any = sys.modules.get("torch.distributed")
    ready = found is not None and found.is_available() and found.is_initialized()
    return found if ready else None


def _size() -> int:
    group = _group()
    return int(os.environ.get("WORLD_SIZE", "1")) if group is None else int(group.get_world_size())


def _number() -> int:
    group = _group()
    return int(os.environ.get("RANK", "0")) if group is None else int(group.get_rank())


def _joined() -> Any:
    """``torch.distributed``, set up as torchrun's environment says unless the caller has."""
    group = _group()
    if group is None:
        import torch

        group = import_module("torch.distributed")
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(local_device())
        try:
            group.init_process_group(backend, timeout=_PATIENCE)
        except (ValueError, RuntimeError) as error:
            raise WagleError(
                f"cannot reach the other processes ({str(error).splitlines()[0]}); start them all "
                "with torchrun"
            ) from error
    return group


@contextmanager
def _peers() -> Iterator[None]:
    """Turn the loss of another process into one line."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(_LOST) from error


@contextmanager
def noticing_losses() -> Iterator[None]:
    """The same around work in which libraries talk to the other processes, such as FSDP2."""
    try:
        yield
    except RuntimeError as error:
        if not any(name in str(error).lower() for name in ("gloo", "nccl", "by peer")):
            raise
        raise Lost(_LOST) from error


class Lost(WagleError):
    """Another process has ended in the middle of common work."""


def leave() -> None:
    """Take leave of the other processes, at the end of a program."""
    group = _group()
    if group is not None:
        group.destroy_process_group()
