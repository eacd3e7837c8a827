"""Reading a mask file: it may be a stranger's, so its header is checked before any level is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wagle.mask.packing import Packed, bits_per_level, level_counts
from wagle.recipe.rules import Unfit, check_ladder
from wagle.system.errors import WagleError
from wagle.system.files.checked import open_checked
from wagle.system.files.tensors import MOST_DIMENSIONS, TensorFile

FORMAT = "wagle-mask/1"
PER_RATIO = ("thresholds", "theta_share")  # metadata with an entry for every ratio, or null
_TEXTS = ("score", "model")
_LARGEST = 1 << 60  # weights of one parameter


class _Wrong(Exception):
    """What in a mask file cannot be; the message ends the sentence "it is corrupt: "."""


def read_mask(path: str | Path) -> Packed:
    """Read a mask; one that is truncated or altered, or that contradicts itself, is an error.

    Sizes are compared with the header before anything is allocated, and the counts with the levels.
    """
    file, metadata = open_checked(path, "mask", FORMAT)
    with file:
        try:
            shapes = _shapes(metadata.pop("parameters", None))
            ratios, counts = metadata.pop("ratios", None), metadata.pop("counts", None)
            _check_ladder(ratios, counts)
            bits = bits_per_level(ratios)
            _check_sizes(file, shapes, bits)
            _check_about(metadata, shapes, len(ratios))
            packed = {name: file.get(name) for name in file.names}
            found = torch.zeros(15 if bits == 4 else 1, dtype=torch.int64)
            for name, shape in shapes.items():
                _check_end(packed[name], bits, math.prod(shape), name)
                found += level_counts(packed[name], bits)
            # the first ratio selects the highest level, each further ratio one level more
            held = found[: len(ratios)].flip(0).cumsum(0).tolist()
            if held != counts or int(found[len(ratios) :].sum()):
                raise _Wrong(f"it selects {held} weights, but its counts are {counts}")
        except _Wrong as error:
            raise WagleError(f"mask {path} is corrupt: {error}; make it again") from None
    return Packed(packed, shapes, tuple(ratios), tuple(counts), metadata)


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= _LARGEST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _shapes(found: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, in parameter order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in found if isinstance(found, list) else ():
        match entry:
            case [str(name), [*shape]] if len(shape) <= MOST_DIMENSIONS and all(map(_whole, shape)):
                shapes[name] = tuple(shape)
            case _:
                raise _Wrong("a parameter is not a name with a shape")
    if not shapes or len(shapes) != len(found):
        raise _Wrong("it lists no parameters, or one twice")
    return shapes


def _check_ladder(ratios: Any, counts: Any) -> None:
    if not isinstance(ratios, list) or not all(_number(r) and 0 < r <= 1 for r in ratios):
        raise _Wrong("its ratios are not numbers above 0, at most 1")
    try:
        check_ladder(ratios, float)
    except Unfit:
        raise _Wrong("its ratios are no ladder") from None
    if not isinstance(counts, list) or not all(map(_whole, counts)) or len(counts) != len(ratios):
        raise _Wrong("its counts are not a whole number per ratio")


def _check_sizes(file: TensorFile, shapes: Mapping[str, tuple[int, ...]], bits: int) -> None:
    """Whether the file holds the levels of every parameter, as many as its shape says."""
    if {*file.names} != {*shapes}:
        raise _Wrong("it does not hold the levels of exactly its parameters")
    for name, shape in shapes.items():
        wanted = (-(-math.prod(shape) * bits // 8),)
        if file.dtype(name) != torch.uint8 or file.shape(name) != wanted:
            raise _Wrong(f"{name[:80]} does not hold the {bits} bits of each of its weights")


def _check_end(packed: torch.Tensor, bits: int, size: int, name: str) -> None:
    """Whether the bits after the last weight are zero: they would be counted."""
    used = size * bits % 8
    if used and int(packed[-1]) >> used:
        raise _Wrong(f"{name[:80]} goes on after its last weight")


def _check_about(about: Mapping[str, Any], shapes: Mapping[str, Any], ratios: int) -> None:
    """Whether what the metadata says besides is of the kind that readers expect."""
    for key in _TEXTS:
        if not isinstance(about.get(key), str | None):
            raise _Wrong(f"its {key} is no text")
    total = sum(map(math.prod, shapes.values()))
    if "candidates" in about and not (
        _whole(about["candidates"], 1) and about["candidates"] <= total
    ):
        raise _Wrong("its number of candidates is not one of its weights")
    names = about.get("names")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(n, str) and n in shapes for n in names)
    ):
        raise _Wrong("its names are not those of its parameters")
    if not isinstance(about.get("settings"), dict | None):
        raise _Wrong("its settings are no table")
    for key in PER_RATIO:
        given = about.get(key)
        fits = isinstance(given, list) and len(given) == ratios
        if given is not None and not (fits and all(v is None or _number(v) for v in given)):
            raise _Wrong(f"its {key} is not a number per ratio")
    bins = about.get("score_histogram")
    if bins is not None and not (isinstance(bins, dict) and all(map(_is_histogram, bins.values()))):
        raise _Wrong("its score_histogram holds no counts")


def _is_histogram(bins: Any) -> bool:
    """Whether bins are pairs of a power of two, or null, and a count."""
    if not isinstance(bins, list):
        return False
    pairs = [b for b in bins if isinstance(b, list) and len(b) == 2]
    powers = all(b[0] is None or (type(b[0]) is int and abs(b[0]) < 2000) for b in pairs)
    return len(pairs) == len(bins) and powers and all(_whole(b[1]) for b in pairs)
