"""Contracts: what wagle expects of another library's private name, and how that is checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any


class BrokenContract(Exception):
    """A library no longer has something wagle uses; the message says what, and who needs it."""


@dataclass(frozen=True)
class Contract:
    """One private or undocumented name.

    Attributes:
        home: what holds it: a module, or ``module:Class.attribute``.
        name: the attribute's name.
        user: the part of ``wagle.compat`` that wraps it.
        purpose: what the wrapper is for; completes the sentence "... needs another way to".
        takes: the parameters that it is called with.
        called_by: a method of the same home that must call it, or read it.
        check: what else must hold for its home; an error counts as a failure.
        promise: says in words what ``check`` tests.
    """

    home: str
    name: str
    user: str
    purpose: str
    takes: tuple[str, ...] = ()
    called_by: str = ""
    check: Callable[[Any], bool] | None = None
    promise: str = ""

    @property
    def library(self) -> str:
        """The package it belongs to."""
        return self.home.partition(".")[0].partition(":")[0]

    def owner(self) -> Any:
        """The object that holds it."""
        module, _, path = self.home.partition(":")
        found: Any = import_module(module)
        for part in path.split(".") if path else ():
            found = getattr(found, part)
        return found

    def sentence(self) -> str:
        """The message for a contract that is broken."""
        called = f"{self.home.replace(':', '.')}.{self.name}"
        called = called.removeprefix(f"{self.library}.")
        said = f"({', '.join(self.takes)})" if self.takes else ""
        where = f", called by {self.called_by}" if self.called_by else ""
        promise = f", {self.promise}" if self.promise else ""
        version = metadata.version(self.library)
        return (
            f"{self.library} {version} no longer has {called}{said}{where}{promise}: "
            f"wagle.compat.{self.user} needs another way to {self.purpose}"
        )

    def hold(self) -> None:
        """Check that the library still keeps the contract.

        Raises:
            BrokenContract: if it does not.
        """
        try:
            kept = self._kept()
        except Exception as error:
            raise BrokenContract(self.sentence()) from error
        if not kept:
            raise BrokenContract(self.sentence())

    def _kept(self) -> bool:
        owner = self.owner()
        if self.takes:
            known = inspect.signature(getattr(owner, self.name)).parameters
            if not set(self.takes) <= set(known):
                return False
        if self.called_by and self.name not in getattr(owner, self.called_by).__code__.co_names:
            return False
        if self.check is not None:
            return self.check(owner)
        return bool(self.called_by) or hasattr(owner, self.name)
