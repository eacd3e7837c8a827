"""Plug-ins: members of tables that others bring, installed with a package or named as ``module:function``.

An installed package adds to a table by an entry point of the table's group (``wagle.objectives`` and
so on); whoever installs a package trusts it. ``module:function`` is looked for in the current folder
and in what Python can import, and runs only if ``allow_code`` was called: a recipe may be a
stranger's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, update_wrapper
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from wagle.system.errors import WagleError, choose, nearest

T = TypeVar("T")
GROUPS = {
    "objective": "wagle.objectives",
    "retain_term": "wagle.retain_terms",
    "score": "wagle.scores",
    "benchmark": "wagle.benchmarks",
    "attack": "wagle.attacks",
    "data": "wagle.data",
}
"""The group of entry points of each kind of plug-in."""


@dataclass
class _Allowed:
    code: bool = False


class _Guarded:
    """A function of others: whatever goes wrong in it is an error of one line that names it.

    It looks like the function, also to what reads its parameters.
    """

    def __init__(self, function: Callable[..., Any], kind: str, name: str) -> None:
        update_wrapper(self, function)
        self._function, self._kind, self._name = function, kind, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        work = partial(self._function, *args, **kwargs)
        return _checked(work, f"the {self._kind} {self._name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return find, ({}, self._name, self._kind)


_allowed = _Allowed()


def allow_code() -> None:
    """From here on, ``module:function`` may be imported and called."""
    _allowed.code = True


@contextmanager
def code_allowed(yes: bool) -> Iterator[None]:
    """Allow it, or leave it as it is, and undo that afterwards."""
    before = _allowed.code
    _allowed.code = before or yes
    try:
        yield
    finally:
        _allowed.code = before


def is_path(name: str) -> bool:
    """Whether a name is ``module:function``."""
    module, colon, function = name.partition(":")
    return (
        bool(colon) and function.isidentifier() and all(p.isidentifier() for p in module.split("."))
    )


def installed(kind: str) -> dict[str, EntryPoint]:
    """The plug-ins of a kind that installed packages bring, by name."""
    return {found.name: found for found in entry_points(group=GROUPS[kind])}


def find(table: Mapping[str, T], name: str, kind: str) -> T | Callable[..., Any]:
    """A member of a table by its name, or a plug-in.

    Args:
        table: the members that wagle has.
        name: of one of them, of an installed plug-in, or ``module:function``.
        kind: a key of GROUPS.

    Returns:
        The member, or what the plug-in is: a function of the same form, or an entry of the table.

    Raises:
        WagleError: there is none; it is code that may not run; importing it fails.
    """
    if name in table:
        return table[name]
    if is_path(name):
        return guarded(_import(name, kind), kind, name)
    brought = installed(kind)
    if name in brought:
        what = f"the {kind} {name} of {_owner(brought[name])}"
        return guarded(_checked(lambda: brought[name].load(), what), kind, name)
    known: Mapping[str, Any] = {**table, **dict.fromkeys(brought)}
    choose(known, name, kind)
    raise AssertionError(name)  # choose has raised


def origin(table: Mapping[str, Any], name: str, kind: str) -> str:
    """Where a member comes from: wagle, an installed package, or a module."""
    if name in table:
        return "wagle"
    brought = installed(kind)
    return _owner(brought[name]) if name in brought else name.partition(":")[0]


def guarded(found: Callable[..., Any], kind: str, name: str) -> Callable[..., Any]:
    """A function of others so that its errors name it; an entry of a table stays as it is."""
    return _Guarded(found, kind, name) if callable(found) else found


def _owner(found: EntryPoint) -> str:
    return found.dist.name if found.dist is not None else found.module


def _import(path: str, kind: str) -> Callable[..., Any]:
    if not _allowed.code:
        raise WagleError(
            f"{kind} {path} is code outside wagle, which can do anything; read it, then set "
            "allow_code: true in the recipe, or give --allow-code"
        )
    module, _, function = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # where the recipe is run
    found = _checked(lambda: import_module(module), f"the {kind} {path}")
    if not hasattr(found, function):
        guess = nearest(function, [n for n in vars(found) if not n.startswith("_")])
        hint = f"; did you mean {module}:{guess}?" if guess else ""
        raise WagleError(f"{kind} {path}: {module} has no {function}{hint}")
    wanted: Callable[..., Any] = getattr(found, function)
    return wanted


def _checked(work: Callable[[], T], what: str) -> T:
    try:
        return work()
    except WagleError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        kind = type(error).__name__
        raise WagleError(f"{what} failed: {kind}{f': {said}' if said else ''}") from error
