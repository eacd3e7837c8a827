"""Structured parts of a model, chosen at random: where knowledge is planted.

A part is a set of weights in the matrices inside the blocks; two draws of one kind are disjoint, so
that the untaught one is a control for the other. To add a kind: a function here, its entry in
PARTS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

import wagle
from wagle.model.structure import find_blocks, place
from wagle.model.weights import fingerprint
from wagle.system.errors import choose

KINDS = ("q", "k", "v", "o", "gate", "up", "down")
Levels: TypeAlias = dict[str, Tensor]


class Parts(NamedTuple):
    """Two disjoint parts of one structure; (shape of the parameter) bool, matrices only.

    Attributes:
        taught: the part that the records are taught into.
        untaught: a part of the same structure and about the same size.
    """

    taught: Levels
    untaught: Levels


def kind_of(name: str) -> str | None:
    """The kind of a matrix inside a block: q, k, v, o, gate, up or down; None for the rest."""
    block, inside = place(name)
    last = inside.split(".")[-2].removesuffix("_proj") if block else ""
    return last if last in KINDS and inside.endswith("_proj.weight") else None


def _matrices(model: PreTrainedModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if kind_of(n) is not None}
    if not found:
        raise wagle.WagleError(
            f"{type(model).__name__} has no q_proj, up_proj and so on; plant in a Llama"
        )
    return found


def rows(model: PreTrainedModel, share: float, draw: torch.Generator) -> Parts:
    """``share`` of the output rows of every matrix inside the blocks, drawn separately for each."""
    parts = Parts({}, {})
    for name, weight in _matrices(model).items():
        many = max(1, int(share * len(weight)))
        order = torch.randperm(len(weight), generator=draw)
        for part, chosen in zip(parts, (order[:many], order[many : 2 * many]), strict=True):
            part[name] = torch.zeros(weight.shape, dtype=torch.bool)
            part[name][chosen] = True
    return parts


def heads(model: PreTrainedModel, share: float, draw: torch.Generator) -> Parts:
    """One attention head in every block: its q rows, its o columns, its group's k and v rows.

    The untaught part has a head of another group. ``share`` is not used: a head is a head.
    """
    del share
    config: Any = model.config
    groups = config.num_key_value_heads
    if groups < 2:
        raise wagle.WagleError("heads need two groups of keys and values; leave the kind out")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = config.num_attention_heads // groups
    parts = Parts({}, {})
    blocks: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for name, weight in _matrices(model).items():
        blocks.setdefault(place(name)[0], {})[str(kind_of(name))] = (name, weight)
    for block in blocks.values():
        group = torch.randperm(groups, generator=draw)[:2]
        head = group * each + torch.randint(each, (2,), generator=draw)
        for part, g, h in zip(parts, group.tolist(), head.tolist(), strict=True):
            for kind, place_in in (("q", h), ("k", g), ("v", g), ("o", h)):
                name, weight = block[kind]
                part[name] = torch.zeros(weight.shape, dtype=torch.bool)
                inside = part[name].T if kind == "o" else part[name]
                inside[place_in * size : (place_in + 1) * size] = True
    return parts


def blocks(model: PreTrainedModel, share: float, draw: torch.Generator) -> Parts:
    """A range of neighbouring blocks, ``share`` of them but at least one, and another range.

    Candidates are all matrices inside the blocks.
    """
    depth = len(find_blocks(model)[1])
    many = max(1, round(share * depth))
    if depth < 2 * many:
        raise wagle.WagleError(f"{depth} blocks have no two ranges of {many}; lower the share")
    slots = depth // many
    first, other = (torch.randperm(slots, generator=draw)[:2] * many).tolist()
    parts = Parts({}, {})
    for name, weight in _matrices(model).items():
        block = int(place(name)[0])
        for part, start in zip(parts, (first, other), strict=True):
            inside = start <= block < start + many
            part[name] = torch.full(weight.shape, inside, dtype=torch.bool)
    return parts


Part: TypeAlias = Callable[[PreTrainedModel, float, torch.Generator], Parts]
PARTS: dict[str, tuple[Part, float]] = {
    "rows": (rows, 0.05),
    "heads": (heads, 0.0),
    "blocks": (blocks, 0.1),
}


def choose_parts(model: PreTrainedModel, kind: str, seed: int) -> Parts:
    """The two parts of a kind that ``seed`` draws."""
    function, share = choose(PARTS, kind, "kind of part")
    return function(model, share, torch.Generator().manual_seed(seed))


def as_mask(model: PreTrainedModel, part: Mapping[str, Tensor], kind: str, seed: int) -> wagle.Mask:
    """The part as a mask of one ratio over all weights that require a gradient."""
    shapes = {n: p.shape for n, p in model.named_parameters() if p.requires_grad}
    total = sum(shape.numel() for shape in shapes.values())
    count = sum(int(torch.count_nonzero(chosen)) for chosen in part.values())
    none = torch.zeros((), dtype=torch.bool)
    levels = {n: part.get(n, none.expand(s)).to(torch.uint8) for n, s in shapes.items()}
    return wagle.Mask.from_levels(
        levels,
        ratios=[count / total],
        counts=[count],
        metadata={
            "score": f"planted {kind}",
            "settings": {"seed": seed},
            "include": [],
            "exclude": [],
            "candidates": total,
            "thresholds": [None],
            "model": fingerprint(model),
        },
    )
