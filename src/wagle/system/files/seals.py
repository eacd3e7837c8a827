"""Seals: digests of files, by which one that was edited later is noticed.

A digest is SHA-256 of a file's bytes. For a file below ``private/`` it is keyed with the salt there,
as records are: a plain digest of a short text could be guessed. Hashing many gigabytes takes a
while, so a large file also has a stamp, its size and time of change: while the stamp is the same, a
quick look takes the file to be the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wagle.system.files.reading import read_key

LARGE = (
    1 << 24
)  # bytes from which a file has a stamp: hashing less takes a few hundredths of a second
PRIVATE = "private"
_CHUNK = 1 << 22


def seal(folder: str | Path, names: Iterable[str]) -> dict[str, str]:
    """The digests of some files of a folder, by their path in it.

    Args:
        folder: the folder.
        names: paths or patterns (``evaluation/after-*.json``); one that ends with a slash stands
            for everything below that folder. What does not exist is left out.
    """
    home = Path(folder)
    return {name: file_digest(home, name) for name in sealable(home, names)}


def sealable(folder: Path, names: Iterable[str]) -> list[str]:
    """The files that ``names`` stand for, sorted: no hidden or temporary ones, and no links out.

    What is private belongs to a seal only if a name begins with ``private/``.
    """
    found = set()
    for name in names:
        pattern = f"{name}**/*" if name.endswith("/") else name
        for path in folder.glob(pattern):
            place = path.relative_to(folder)
            hidden = any(p.startswith(".") or p.endswith(".part") for p in place.parts)
            private = PRIVATE in place.parts and not name.startswith(f"{PRIVATE}/")
            if path.is_file() and not hidden and not private:
                found.add(place.as_posix())
    return sorted(found)


def stamp(path: Path) -> list[int]:
    """The size of a file in bytes, and the time of its last change in nanoseconds."""
    told = path.stat()
    return [told.st_size, told.st_mtime_ns]


def marks(path: Path) -> tuple[int, ...]:
    """What a file cannot keep while it is written to or replaced, whatever its stamp says."""
    told = path.stat()
    return (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)


def large_stamps(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """The stamps of those files that are large."""
    found = {name: stamp(folder / name) for name in names}
    return {name: told for name, told in found.items() if told[0] >= LARGE}


def file_digest(folder: Path, name: str) -> str:
    """The digest of one file, in hexadecimal; keyed if it is private and there is a salt."""
    salt = folder / PRIVATE / "salt"
    keyed = Path(name).parts[0] == PRIVATE and salt.is_file()
    return sha256_of(folder / name, read_key(salt) if keyed else None)


def sha256_of(path: Path, key: bytes | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; with a key, its HMAC."""
    made: Any = hashlib.sha256() if key is None else hmac.new(key, digestmod=hashlib.sha256)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            made.update(chunk)
    return str(made.hexdigest())


def is_intact(folder: Path, name: str, digest: str, told: list[int] | None = None) -> bool:
    """Whether a file still has its digest; one that still has its stamp ``told`` is not read."""
    path = folder / name
    if not path.is_file():
        return False
    return (told is not None and stamp(path) == told) or file_digest(folder, name) == digest


def content_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys; as it will be read back."""
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
