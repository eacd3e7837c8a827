"""A run on two processes, one of which is killed: the other must not hang, and nothing may be lost."""

from __future__ import annotations

import os
import signal
import socket
import time

from bench.faults.trying import Ended, Process, at_stages
from bench.faults.undisturbed import Undisturbed

LOST = "another process has ended"  # what rank 0 says of it
PATIENCE = 30.0  # seconds in which everything must have ended once the others are needed


def two_processes(run: Undisturbed, stage: str, share: float) -> tuple[Ended, float]:
    """Run on two processes and kill the second one in a stage.

    Args:
        run: the undisturbed run, whose folder is as it was when the stage began.
        stage: where rank 1 is killed.
        share: of the stage's time, after which it is.

    Returns:
        How rank 0 ended, and how many seconds after the kill.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    read, write = os.pipe()

    def tell(name: str) -> None:
        if name == stage:
            os.write(write, b"!")

    def lead() -> None:
        _be_rank(0, port)
        at_stages(tell)

    first = run.start(lead)
    second = Process(run.command, run.home / "peer.log", lambda: _be_rank(1, port))
    os.close(write)
    os.read(read, 1)
    os.close(read)
    time.sleep(share * run.seconds[stage])
    second.send(signal.SIGKILL)
    began = time.monotonic()
    second.wait()
    ended = first.wait(PATIENCE + 3 * sum(run.seconds.values()))  # it may not need the other at all
    return ended, time.monotonic() - began


def _be_rank(rank: int, port: int) -> None:
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
