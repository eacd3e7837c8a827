"""Results that are kept while there is room for them, so that nothing is made twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Results by key. Once they are more than there is room for, all are let go.

    Args:
        room: the size of all results together, at most; one that is larger is not kept.
        size: the size of a result.
    """

    def __init__(self, room: int, size: Callable[[T], int]) -> None:
        self.room, self.size = room, size
        self._known: dict[Hashable, T] = {}
        self._used = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of ``key``: what ``make`` gave before, or gives now; its errors are not kept.

        Args:
            key: all that the result depends on.
            make: gives what nobody changes afterwards.
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
