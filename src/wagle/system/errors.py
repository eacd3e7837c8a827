"""The errors that wagle raises: one line saying what is wrong, where, and what to do.

    WagleError          anything the user can fix: a recipe, a file, a record, a disk
        TrainingStopped the loss is no longer finite, or the records to keep were lost
        Refused         evidence does not hold: an audit says so and exits with code 1
        Unwritable      a folder is read-only, or someone else's
        DiskFull        there was no room for a file; a caller that knows how much it needs adds it

The command line prints these without a traceback and exits with code 2. Anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")
_LONGEST = 200  # characters of a name that is compared with others


class WagleError(Exception):
    """A problem that the user can fix. The message is one line.

    ``everywhere`` says that all processes of a run raised it together.
    """

    everywhere = False


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; what was to be finished first is finished and kept.

    ``everywhere`` is that of ``WagleError``.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        super().__init__()
        self.everywhere = everywhere


class DiskFull(WagleError):
    """A file did not fit on the disk; no part of it is left."""


class Unwritable(WagleError):
    """Nothing can be written in a folder: it is read-only, or someone else's."""


class Refused(WagleError):
    """A pack of evidence contradicts itself, or what it is compared with."""


class TrainingStopped(WagleError):
    """Training met a loss or a gradient that is not finite, or lost the records to keep.

    ``step`` is the one whose weights were restored: the last good ones; 0 is before training.
    """

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to ``name``, or None."""
    if len(name) > _LONGEST:  # comparing takes the square of the length
        return None
    found = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Look ``name`` up in ``table``; an unknown name is an error that suggests the nearest one.

    Args:
        table: the known names.
        name: the name asked for.
        what: what the names are, for the message ("score", "objective").
    """
    if name in table:
        return table[name]
    hint = nearest(name, table)
    guess = f"; did you mean {hint!r}?" if hint else ""
    raise WagleError(f"unknown {what} {name!r}{guess} (known: {', '.join(sorted(table))})")


def no_setting(
    what: str,
    key: str,
    known: Iterable[str],
    *,
    near: str = "; did you mean {!r}?",
    listed: str = " (known: {})",
    short: bool = False,
) -> WagleError:
    """The error for a setting that does not exist: it names the nearest one and lists them all.

    Args:
        what: what it would be a setting of ("wrapper sam").
        key: the setting asked for.
        known: the settings that exist.
        near: how the nearest one is shown; nothing is shown if none is similar.
        listed: how the full list is shown.
        short: list them only if none is similar.
    """
    names = list(known)
    guess = nearest(key, names)
    hint = near.format(guess) if guess else ""
    every = "" if guess and short else listed.format(", ".join(names) or "none")
    return WagleError(f"{what} has no setting {key!r}{hint}{every}")
