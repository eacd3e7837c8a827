"""Masks made by hand over a few small parameters."""

import math

import torch
from hypothesis import strategies as st

from wagle.mask.mask import Mask

SHAPES = {
    "model.embed_tokens.weight": (5, 3),
    "model.layers.0.mlp.up_proj.weight": (3, 7),
    "model.layers.1.mlp.up_proj.weight": (4, 2),
    "model.norm.weight": (3,),
}
N = sum(math.prod(shape) for shape in SHAPES.values())


def metadata(**changes):
    base = {"score": "random", "settings": {"seed": 3}, "candidates": N, "thresholds": None}
    return {**base, "model": "a1" * 32, "names": None, **changes}


def single(chosen, **changes):
    """A mask of flat bools over SHAPES, in order."""
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    flat = torch.tensor(chosen, dtype=torch.uint8).split(sizes)
    levels = {n: part.view(s) for (n, s), part in zip(SHAPES.items(), flat, strict=True)}
    count = sum(chosen)
    about = metadata(**changes)
    return Mask.from_levels(
        levels, ratios=[count / about["candidates"]], counts=[count], metadata=about
    )


def bits(mask):
    return [bool(b) for tensor in mask.values() for b in tensor.reshape(-1)]


def ladder(levels, ratios, **changes):
    """A mask of several ratios from flat levels over SHAPES."""
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    flat = torch.tensor(levels, dtype=torch.uint8).split(sizes)
    parts = {n: part.view(s) for (n, s), part in zip(SHAPES.items(), flat, strict=True)}
    counts = [sum(level >= need for level in levels) for need in range(len(ratios), 0, -1)]
    return Mask.from_levels(parts, ratios=ratios, counts=counts, metadata=metadata(**changes))


some = st.lists(st.booleans(), min_size=N, max_size=N).filter(any)
three_levels = st.lists(st.integers(0, 3), min_size=N, max_size=N)
