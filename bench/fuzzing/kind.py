"""What every kind of file that is fuzzed has."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from random import Random
from typing import Protocol


class Kind(Protocol):
    """One kind of file.

    Args:
        examples: the folder of examples.
        work: an empty folder that this process alone writes to.
    """

    @abstractmethod
    def __init__(self, examples: Path, work: Path) -> None: ...

    def write(self, rng: Random) -> str:
        """Write a mutant; returns how it was made, in a word."""

    def use(self) -> None:
        """Open the mutant and use it."""
