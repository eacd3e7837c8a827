"""How the benchmarks measure: seconds, peak memory, bytes, and the machine's own rates.

Each measurement runs in its own process, so that its peak memory is its own. Linux only: the
figures come from /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
_BUFFER = 16 << 20  # bytes per write or read of a rate


def say(text: str) -> None:
    """One line of progress, on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of one call and its wall seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _status(field: str) -> float:
    """A memory figure of this process in GB (1e9 bytes), such as VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(f"/proc/self/status has no {field}; the benchmarks need Linux")


class Memory:
    """The peak memory of this process while the block runs, in GB (1e9 bytes).

    ``peak`` is VmHWM, the kernel's own peak of resident memory since the process began: imports,
    weights, buffers and the file pages mapped into it. (``ru_maxrss`` would start at the size of
    the parent.) ``anonymous`` leaves the file pages out; it is sampled every 20 ms.
    """

    def __init__(self) -> None:
        self.peak = self.anonymous = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.anonymous = max(self.anonymous, _status("RssAnon"))

    def __enter__(self) -> Memory:
        self.anonymous = _status("RssAnon")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self.peak = _status("VmHWM")

    def figures(self) -> dict[str, float]:
        """Both peaks, as a measurement reports them."""
        return {"peak_gb": self.peak, "anonymous_gb": self.anonymous}


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


@contextmanager
def moved() -> Iterator[dict[str, float]]:
    """Fill a dict with the GB that this process moved in the block.

    ``read`` and ``written`` reached the disk (``read_bytes`` and ``write_bytes`` of /proc/self/io);
    ``asked_read`` and ``asked_written`` went through system calls, also where the page cache
    answered (``rchar``, ``wchar``); pages of a memory map are in the first kind only.
    """
    names = {
        "read": "read_bytes",
        "written": "write_bytes",
        "asked_read": "rchar",
        "asked_written": "wchar",
    }
    found: dict[str, float] = {}
    before = _io()
    yield found
    after = _io()
    found.update({ours: (after[key] - before[key]) / 1e9 for ours, key in names.items()})


def forget_pages(folder: Path) -> None:
    """Drop the files of a folder from the page cache, so that reading them reads the disk."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def disk_rates(folder: Path, size: int) -> dict[str, float]:
    """The disk's own speed in GB/s: one file written and synced, then read from the disk."""
    data = os.urandom(_BUFFER)  # a disk may compress zeros
    path = folder / "rate.part"

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(max(1, size // _BUFFER)):
                file.write(data)
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(_BUFFER):
                pass

    try:
        written = timed(write)[1]
        total = path.stat().st_size
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        return {"write": total / 1e9 / written, "read": total / 1e9 / timed(read)[1]}
    finally:
        path.unlink(missing_ok=True)


def matmul_rate(rows: int, inner: int, columns: int) -> float:
    """FLOP/s of a bfloat16 matrix product (rows, inner) x (inner, columns), best of five."""
    import torch

    left = torch.randn(rows, inner).bfloat16()
    right = torch.randn(columns, inner).bfloat16()  # as a linear layer keeps it
    product = torch.empty(rows, columns, dtype=torch.bfloat16)
    best = min(timed(lambda: torch.mm(left, right.T, out=product))[1] for _ in range(5))
    return 2 * rows * inner * columns / best


class Limit:
    """A memory cgroup (v1) that the processes of a benchmark join: what it allows, and what was used.

    Files that are read or mapped count, too, but their pages are given back when there is no room.

    Args:
        gb: the most memory, in GB (1e9 bytes); None: no limit.

    Raises:
        SystemExit: a limit is wanted, and this machine lets us set none.
    """

    _ROOT = Path("/sys/fs/cgroup/memory")

    def __init__(self, gb: float | None) -> None:
        self.gb = gb
        self._group = self._ROOT / f"wagle-bench-{os.getpid()}"

    def __enter__(self) -> Limit:
        if self.gb is not None:
            try:
                self._group.mkdir()
                (self._group / "memory.limit_in_bytes").write_text(str(int(self.gb * 1e9)))
            except OSError as error:
                raise SystemExit(f"bench: no memory cgroup can be made here ({error})") from None
        return self

    def command(self, command: list[str]) -> list[str]:
        """The command, begun inside the group."""
        if self.gb is None:
            return command
        return ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh", *command]

    def figures(self) -> dict[str, float]:
        """The limit and the most that was used, in GB, files included."""
        if self.gb is None:
            return {}
        used = int((self._group / "memory.max_usage_in_bytes").read_text())
        return {"limit_gb": self.gb, "used_with_files_gb": used / 1e9}

    def __exit__(self, *_: object) -> None:
        if self.gb is not None:
            self._group.rmdir()


def in_own_process(
    module: str, name: str, setup: dict[str, Any], limit_gb: float | None = None
) -> dict[str, Any]:
    """Run ``python -m module`` on ``name`` and ``setup`` and return the JSON that it wrote.

    Its output goes to this process's stderr; a failure ends the benchmark with its last line.

    Args:
        module: the module.
        name: what it is to do.
        setup: with what.
        limit_gb: the most memory that it may take, its pages of files included; None: any.
    """
    with tempfile.TemporaryDirectory(prefix="wagle-bench-") as folder:
        asked, answered = Path(folder) / "asked.json", Path(folder) / "answered.json"
        asked.write_text(json.dumps(setup))
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        command = [sys.executable, "-m", module, name, str(asked), str(answered)]
        with Limit(limit_gb) as limit:
            begun = limit.command(command)
            done = subprocess.run(begun, env=environment, stdout=sys.stderr, check=False)
            used = limit.figures()
        if done.returncode != 0:
            raise SystemExit(
                f"bench: {name} failed (status {done.returncode}); see the lines above"
            )
        found: dict[str, Any] = json.loads(answered.read_text())
        return {**found, **used}
