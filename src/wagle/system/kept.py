"""A cache: results are kept while there is room, so that nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Results by key. When they no longer fit, all of them are dropped.

    Args:
        room: the most that all results together may take; a larger single result is not kept.
        size: measures a result.
    """

    def __init__(self, room: int, size: Callable[[T], int]) -> None:
        self.room, self.size = room, size
        self._known: dict[Hashable, T] = {}
        self._used = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for ``key``, kept from before or made now; errors are not kept.

        Args:
            key: everything the result depends on.
            make: makes the result, which nobody may change afterwards.
        """
        if key in self._known:
            return self._known[key]
        made = make()
        size = self.size(made)
        if self._used + size > self.room:
            self._known.clear()
            self._used = 0
        if size <= self.room:
            self._known[key] = made
            self._used += size
        return made
