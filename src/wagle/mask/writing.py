"""Building a mask from levels that arrive in chunks and are packed as they arrive."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from wagle.mask.packing import Packed, bits_per_level, pack
from wagle.recipe.rules import MOST_RATIOS, Unfit, check_ladder
from wagle.system.errors import WagleError
from wagle.system.memory import Spill

_IN_MEMORY = 1 << 30  # bytes of packed levels before they go to a file
T = TypeVar("T", bound="float | str")


def refuse_ladder(ratios: Sequence[T], exact: Callable[[T], Any] = float) -> None:
    """Refuse ratios that do not form a ladder: 1 to 15 of them, ascending, without repeats.

    Args:
        ratios: the ratios asked for.
        exact: converts a ratio to the number it stands for.
    """
    try:
        check_ladder(ratios, exact)
    except Unfit as unfit:
        raise WagleError(
            f"a ladder has 1 to {MOST_RATIOS} ratios, not {len(ratios)}"
            if unfit.rule == "length"
            else f"the ratios {list(ratios)} must ascend without repeats"
        ) from None


class MaskWriter:
    """Builds a mask from levels that arrive in chunks; only the packed bits are kept.

    Weights that are never added are not selected. Example::

        writer = MaskWriter(shapes, ratios)
        for name, levels in chunks:
            writer.add(name, levels)
        mask = Mask(*writer.finish(counts, metadata))
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], ratios: Sequence[float]) -> None:
        """Reserve the packed bits.

        Args:
            shapes: the shape of every parameter of the model, in parameter order.
            ratios: the ratios of the ladder, ascending: 1 to 15 of them.
        """
        refuse_ladder(ratios)
        self.shapes = dict(shapes)
        self.ratios = tuple(ratios)
        self._bits = bits_per_level(ratios)
        self._packed = Spill(_IN_MEMORY)
        self._begun: dict[str, Tensor] = {}
        self._filled = dict.fromkeys(self.shapes, 0)

    def _room(self, name: str) -> Tensor:
        size = math.prod(self.shapes[name])
        return torch.zeros(-(-size * self._bits // 8), dtype=torch.uint8)

    def add(self, name: str, levels: Tensor) -> None:
        """Append the levels of the next weights of one parameter.

        Args:
            name: the parameter.
            levels: any number of levels, in any shape, uint8 or bool, row by row: per weight, how
                many ratios of the ladder select it.
        """
        values = levels.reshape(-1).to("cpu", torch.uint8)
        if not len(values):
            return
        done, size = self._filled[name], math.prod(self.shapes[name])
        if done + len(values) > size:
            raise WagleError(f"{name} has {size} weights, but got {done + len(values)} levels")
        if int(values.max()) > len(self.ratios):
            raise WagleError(
                f"{name} has level {int(values.max())} in a ladder of {len(self.ratios)} ratios"
            )
        self._filled[name] = done + len(values)
        per_byte = 8 // self._bits
        head = min(-done % per_byte, len(values))  # these belong in a byte that is partly filled
        if name not in self._begun:
            self._begun[name] = self._room(name)
        packed, at = self._begun[name], done // per_byte
        if head:
            packed[at] |= pack(values[:head], self._bits)[0] << (done % per_byte * self._bits)
            at += 1
        rest = pack(values[head:], self._bits)
        packed[at : at + len(rest)] = rest
        if self._filled[name] == size:
            self._packed[name] = self._begun.pop(name)

    def finish(self, counts: Sequence[int], metadata: dict[str, Any]) -> Packed:
        """The parts of the mask; a parameter that was begun but not completed is an error.

        Args:
            counts: how many weights each ratio selects.
            metadata: a description of the mask, as JSON: score, settings, candidates, thresholds,
                model.
        """
        for name, done in self._filled.items():
            if done not in (0, math.prod(self.shapes[name])):
                raise WagleError(
                    f"{name} has {math.prod(self.shapes[name])} weights, but got only {done} levels"
                )
            if name not in self._packed:
                self._packed[name] = self._room(name)
        return Packed(self._packed, self.shapes, self.ratios, tuple(counts), metadata)
