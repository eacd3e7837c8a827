"""This machine: its memory, its disk and how fast it is, measured in a moment."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wagle.run.planning.terms import Batch
from wagle.system.errors import WagleError
from wagle.system.memory import free_memory, total_memory

_BLOCK = 4 << 20  # bytes per read or write
_QUICK, _LONG = 48 << 20, 512 << 20  # bytes written and read again
_SIDE = 1024  # of the matrices multiplied
_WORDS = 512  # the vocabulary of a model of one block


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        memory: bytes in all.
        free: bytes that a run could use: what is free, and what this process itself takes.
        disk: free bytes where the run folder will be.
        rates: as ``formulas.seconds`` takes them; empty: unknown.
    """

    memory: int
    free: int
    disk: int
    rates: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def this_machine(folder: str | Path, *, rates: str = "quick") -> Machine:
    """Look at this machine.

    Args:
        folder: where the run will be; it need not exist.
        rates: ``none``, ``quick`` (measured in less than two seconds) or ``long``.
    """
    import psutil

    home = existing(folder)
    known = {} if rates == "none" else measure_rates(home, long=rates == "long")
    free = free_memory() + psutil.Process().memory_info().rss
    return Machine(total_memory(), free, shutil.disk_usage(home).free, known)


def existing(folder: str | Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    home = Path(folder).absolute()
    while not home.is_dir():
        home = home.parent
    return home


def measure_rates(folder: Path, *, long: bool = False) -> dict[str, float]:
    """The rates of this machine, each from a short piece of the work that a run does."""
    import torch

    side, repeat = _SIDE, 5 if long else 2
    left, right = torch.randn(256, side), torch.randn(side, 4 * side)
    flops = 2.0 * 256 * side * 4 * side
    halves = left.bfloat16(), right.bfloat16()
    vector = torch.nn.Parameter(torch.randn(1 << 21 if long else 1 << 19))
    vector.grad = torch.randn_like(vector)
    optimizer = torch.optim.AdamW([vector], lr=1e-5)
    optimizer.step()
    index = torch.randperm(4 * vector.numel())[: vector.numel()].sort().values.int()
    dense = torch.randn(4 * vector.numel())
    data = os.urandom(_BLOCK)
    row, weights = torch.randn(1, 4 * side), torch.randn(4 * side, 4 * side)  # 64 MB: not in caches

    def step() -> None:
        dense.index_select(0, index)
        optimizer.step()
        dense.index_copy_(0, index.long(), vector.detach())

    read, written = disk_rates(folder, _LONG if long else _QUICK)
    return {
        "flops": flops / _best(lambda: left @ right, repeat),
        "flops_half": flops / _best(lambda: halves[0] @ halves[1], repeat),
        "stepped": vector.numel() / _best(step, repeat),
        "hashed": len(data) / _best(lambda: hashlib.sha256(data), repeat),
        "decoded": weights.numel() / _best(lambda: row @ weights, repeat),
        "read": read,
        "written": written,
        "start": 1.0,  # files opened, models placed
    }


def disk_rates(folder: Path, size: int) -> tuple[float, float]:
    """Bytes per second read from and written to the disk of a folder, past the page cache."""
    data = mmap.mmap(-1, _BLOCK)  # aligned, as direct reading demands
    data.write(os.urandom(_BLOCK))
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".wagle-") as file:
            started = time.perf_counter()
            for _ in range(size // _BLOCK):
                os.write(file.fileno(), data)
            os.fsync(file.fileno())
            written = size / (time.perf_counter() - started)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            handle = _opened(file.name)
            try:
                started = time.perf_counter()
                while os.readv(handle, [data]):
                    pass
                return size / (time.perf_counter() - started), written
            finally:
                os.close(handle)
    except OSError as error:
        raise WagleError(
            f"cannot measure the disk of {folder}: {os.strerror(error.errno or 0)}; choose another "
            "folder with --out"
        ) from None


def _opened(name: str) -> int:
    """A file opened for reading past the page cache, where the file system can."""
    try:
        return os.open(name, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    except OSError:
        return os.open(name, os.O_RDONLY)


def _best(work: Callable[[], object], repeat: int) -> float:
    """The seconds of the fastest of a few calls, after one that does not count."""
    work()
    found = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return max(min(found), 1e-9)


def block_rate(
    folder: Path, batch: Batch, *, half: bool, eager: bool, trust_remote_code: bool = False
) -> float:
    """Operations per second of one block of a model, forward and back, with random weights.

    The block is the model's own, in a model of one block and a small vocabulary.

    Args:
        folder: a model folder; only its configuration is read.
        batch: what goes through the block.
        half: whether matrix products run in bfloat16.
        eager: which attention.
        trust_remote_code: whether the code of the folder may run.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    inner: Any = config.get_text_config(decoder=True)
    inner.num_hidden_layers, inner.vocab_size, inner.pad_token_id = 1, _WORDS, None
    if getattr(inner, "layer_types", None):
        inner.layer_types = inner.layer_types[:1]
    attention = "eager" if eager else "sdpa"
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, trust_remote_code=trust_remote_code
    ).train()
    ids = torch.randint(0, _WORDS, (batch.records, batch.width))
    weights: int = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = model(input_ids=ids, use_cache=False).logits
        out.float().square().mean().backward()
        model.zero_grad()

    return float(6 * weights * batch.tokens) / _best(step, 2)
