"""A table whose members are files: to add a member, add its file, and nothing else."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Mapping[str, Callable[..., T]], Generic[T]):
    """The functions, by name, of a package that holds one file per member.

    A member, its file and the function in it share one name: ``benchmarks/tofu.py``, or the
    package ``benchmarks/tofu/``, holds ``tofu``. There is no separate list to keep up to date;
    anything that is not a member lives in another package. The names are read from the folder; a
    member is imported when it is looked up, so using one does not import them all.

    Args:
        package: its dotted name.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self:
            raise KeyError(name)
        found: Callable[..., T] = getattr(import_module(f"{self.package}.{name}"), name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        """The names of the files, in alphabetical order."""
        folder = import_module(self.package).__path__
        return sorted(module.name for module in pkgutil.iter_modules(folder))
