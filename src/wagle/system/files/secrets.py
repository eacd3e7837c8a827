"""Privacy: folders of mode 0700, and digests that need a secret key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

from wagle.system.errors import WagleError
from wagle.system.files.atomic import disk_errors, write_text
from wagle.system.files.reading import read_key


def private_folder(path: Path) -> Path:
    """Make ``path`` accessible to its owner only."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    return path


def salt(folder: Path) -> bytes:
    """The secret key of a private folder, created on first use.

    Digests keyed with it name sets of records without letting anyone guess short records.
    """
    path = folder / "salt"
    if not path.exists():
        if os.environ.get("RANK", "0") == "0":
            write_text(path, secrets.token_hex(32) + "\n", private=True)
        else:  # one of several processes, the first of which draws it
            _wait_for(path)
    return read_key(path)


def keyed_digest(key: bytes, items: list[str]) -> str:
    """A digest of ``items`` that cannot be recomputed without ``key``; 16 hex digits."""
    return hmac.new(key, "\0".join(items).encode(), hashlib.sha256).hexdigest()[:16]


def _wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise WagleError(f"{path} was not made by the first process; call this on every process")
