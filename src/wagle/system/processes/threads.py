"""Threads that call torch, also in a process that was forked after torch had begun."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import torch


def torch_threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads in which torch may be called.

    In a process that was forked, the first thread that calls torch makes torch's own pool anew, and
    two that begin at once disturb each other ("Invalid thread pool!"). Here one thread goes first,
    alone; it changes no setting.
    """
    first = Thread(target=torch.get_num_threads)
    first.start()
    first.join()
    return ThreadPoolExecutor(count)
