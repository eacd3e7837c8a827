"""Several processes for tests, as torchrun would start them, but in a tenth of a second.

They are forked from a server that has imported everything.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

SECONDS = 120
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _environment(rank: int, world: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def _child(ends: Connection, environment: dict[str, str], function: Any, args: Any) -> None:
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    try:
        found: tuple[str, Any] = ("found", function(*args))
    except SystemExit as end:
        found = ("exit", end.code)
    except BaseException as error:  # noqa: BLE001
        found = ("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    sys.stdout.flush()
    sys.stderr.flush()
    ends.send_bytes(pickle.dumps(found))  # not by shared memory, which ends with this process
    ends.close()
    os._exit(0)


class Ranks:
    """Processes that run one function together; ``ends()`` gives what each returned."""

    def __init__(self, world: int, function: Any, *args: Any) -> None:
        port, self.processes, self.pipes = free_port(), [], []
        for rank in range(world):
            ours, theirs = _CONTEXT.Pipe(duplex=False)
            arguments = (theirs, _environment(rank, world, port), function, args)
            process = _CONTEXT.Process(target=_child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def ends(self, seconds: float = SECONDS) -> list[tuple[str, Any]]:
        """How each of them ended: (found, result), (exit, code), (error, text) or (died, code)."""
        found: dict[int, tuple[str, Any]] = {}
        for rank, pipe in enumerate(self.pipes):
            if not wait([pipe], seconds):
                self.kill()
                raise AssertionError(f"rank {rank} hangs after {seconds} s; so far {found}")
            try:
                found[rank] = pickle.loads(pipe.recv_bytes())  # noqa: S301
            except EOFError:
                self.processes[rank].join(5)
                found[rank] = ("died", self.processes[rank].exitcode)
        for process in self.processes:
            process.join(10)
        return [found[rank] for rank in range(len(self.pipes))]

    def kill(self) -> None:
        """End them all."""
        for process in self.processes:
            process.kill()


def on(world: int, function: Any, *args: Any) -> list[Any]:
    """What a function returns on each of several processes that run it together."""
    ends = Ranks(world, function, *args).ends()
    wrong = [
        f"rank {rank}: {how} {what}" for rank, (how, what) in enumerate(ends) if how != "found"
    ]
    first = [text for text in wrong if "another process has ended" not in text]
    assert not wrong, "\n".join(first or wrong)
    return [what for _, what in ends]
