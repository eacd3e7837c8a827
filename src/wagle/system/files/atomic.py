"""Files that are either whole or absent: atomic writes, JSON, resumable folders, locks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wagle.system.errors import DiskFull, Unwritable, WagleError
from wagle.system.files.reading import read_json

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path, *, others: bool = True) -> Iterator[None]:
    """Turn a full disk or a failed write into a one-line error; libraries may wrap the OSError.

    Args:
        path: what was to be written.
        others: whether any other error of the system counts, too; where more than writing is done,
            one that is not of the disk may be a bug.
    """
    try:
        yield
    except WagleError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        full = number in _FULL
        if full or "os error 28" in str(error) or "No space left" in str(error):
            free = shutil.disk_usage(_existing(path)).free / 1e9
            raise DiskFull(
                f"the disk is full ({free:.2f} GB left) while writing {path}; nothing was "
                "kept: free some space and start again"
            ) from error
        if number is not None and (others or number in {errno.EIO, *_UNWRITABLE}):
            at = getattr(error, "filename", None)
            where = f" ({at})" if at and str(at) != str(path) else ""
            kind = Unwritable if number in _UNWRITABLE else WagleError
            raise kind(f"cannot write {path}: {os.strerror(number)}{where}") from error
        raise


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def atomic_file(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success it is synced and renamed, else removed.

    Args:
        path: the file to make; its folder is created if needed.
        private: use mode 0600 instead of what the umask allows.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if private:  # from the first byte
                os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            yield part
            os.chmod(part, 0o600 if private else 0o666 & ~_umask())
            _sync(part)
            os.replace(part, path)
            _sync(path.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            raise


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new temporary folder; on success it replaces ``path``, else it is removed."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with disk_errors(path):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            _finish_folder(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _finish_folder(part: Path, path: Path) -> None:
    for file in sorted(part.rglob("*")):
        if file.is_file():
            os.chmod(file, 0o666 & ~_umask())
            _sync(file)
    _sync(part)
    if path.exists():
        shutil.rmtree(path)
    os.replace(part, path)
    _sync(path.parent)


def part_of(path: str | Path) -> Path:
    """Where ``resumable_folder`` keeps an unfinished folder."""
    path = Path(path)
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def resumable_folder(path: str | Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    """Like ``atomic_folder``, but keeps what a killed process left behind under the same plan.

    An error removes the folder; an interruption (Ctrl-C, a kill) leaves it for the next call.

    Args:
        path: the folder to make.
        plan: everything the contents depend on; leftovers of another plan are removed, but for the
            file ``salt``.
    """
    path, part = Path(path), part_of(path)
    said, salt = part / "plan.json", part / "salt"
    with disk_errors(path):
        plain = json.loads(json.dumps(plan))
        if not said.is_file() or read_json(said) != plain:
            key = salt.read_bytes() if salt.is_file() else None  # the plan was made with it
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True, mode=0o777 if key is None else 0o700)
            if key is not None:
                write_text(salt, key.decode(), private=True)
            write_json(said, plain)
        try:
            yield part
            said.unlink()
            _finish_folder(part, path)
        except Exception:
            shutil.rmtree(part, ignore_errors=True)
            raise


def check_space(path: str | Path, need: int, what: str, hint: str) -> None:
    """Refuse to start work that would fill the disk.

    Args:
        path: where the output will be written.
        need: how many bytes it takes.
        what: its name, for the message.
        hint: what the user can do other than freeing space.
    """
    free = shutil.disk_usage(_existing(Path(path))).free
    if need > free:
        raise WagleError(
            f"{what} needs {need / 1e9:.2f} GB, but {_existing(Path(path))} has {free / 1e9:.2f} GB "
            f"left; free some space or {hint}"
        )


def write_text(path: str | Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` atomically as UTF-8."""
    with atomic_file(path, private=private) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, private: bool = False) -> None:
    """Write ``value`` atomically as indented JSON; NaN is an error, as in ``wagle-eval/1``."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", private=private)


def append_line(path: Path, value: Any) -> None:
    """Append ``value`` as one line of JSON; readers skip a line that was cut off."""
    line = json.dumps(value, ensure_ascii=False) + "\n"
    with disk_errors(path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a killed process wrote a part of its line
                line = "\n" + line
        file.write(line.encode())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; a second run in it is an error, not a race.

    The kernel holds the lock, on the file ``.lock``: it is released however the process ends.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0, mode=0o600)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise WagleError(
                f"another wagle process is working in {folder}; wait for it or choose another --out"
            ) from None
    try:
        yield
    finally:
        lock.release()
