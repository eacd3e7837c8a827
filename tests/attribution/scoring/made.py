"""Gradient stores made by hand over a few small parameters, and the slow way to select."""

import math

import torch

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.scores import SCORES
from wagle.attribution.store import GradientStore
from wagle.model.structure import place

SHAPES = {
    "embed.weight": (7, 4),
    "layers.0.attn.c_attn.weight": (4, 6),  # transposed: six outputs
    "layers.0.mlp.up.weight": (9, 4),
    "layers.0.ln_1.bias": (5,),
    "layers.1.mlp.experts.up": (2, 3, 4),
    "layers.1.mlp.down.weight": (4, 9),
}
TRANSPOSED = ["layers.0.attn.c_attn.weight"]
LINEAR = [TRANSPOSED[0], "layers.0.mlp.up.weight", "layers.1.mlp.down.weight"]
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


def make_store(values=None, *, quantities=COLLECTED, seed=0, records=("a", "b"), files=None):
    """A store of SHAPES; ``values`` gives whole quantities, the others are drawn."""
    torch.manual_seed(seed)
    tensors = {}
    for quantity in ("weight", *COLLECTED):
        found = {n: torch.randn(s) * 0.1 for n, s in SHAPES.items()}
        if quantity in ("square_retain", "fisher_retain"):
            found = {n: t.square() for n, t in found.items()}
        if quantity == "input_square":
            found = {n: torch.rand(_inputs(n)) for n in LINEAR}
        if quantity in ("weight", *quantities):
            tensors[quantity] = found
    metadata = {
        "parameters": [[name, list(shape)] for name, shape in SHAPES.items()],
        "quantities": list(quantities),
        "transposed": TRANSPOSED,
        "model": {"folder": None, "fingerprint": "a71b80ff"},
        "records": {"forget": list(records), "retain": ["c"]},
    }
    tensors.update(values or {})
    return GradientStore(metadata, {} if files else tensors, files or {})


def _inputs(name):
    shape = SHAPES[name]
    return (shape[0], 1) if name in TRANSPOSED else (1, shape[1])


def full(store, quantity, name):
    return store.get(quantity, name).expand(SHAPES[name])


def flat(store, quantity):
    return torch.cat([full(store, quantity, name).reshape(-1) for name in SHAPES])


def scores_of(store, name, **settings):
    """By parameter, the scores of one of the functions, in float32, not in chunks."""
    score = SCORES[name]
    have = [n for n in SHAPES if all(store.has(q, n) for q in score.quantities)]
    return {
        n: score.function(**{q: full(store, q, n) for q in score.quantities}, **settings)
        for n in have
    }


def as_sets(mask):
    """By ratio and parameter, which weights a ladder selects."""
    most = len(mask.ratios)
    return [{n: mask.level(n) >= most - i for n in mask.shapes} for i in range(most)]


def largest(groups, ratio):
    """The slow way: per group of (score, place), floor(ratio * n) of a stable sort."""
    chosen = set()
    for group in groups:
        count = round(ratio * 100) * len(group) // 100
        chosen |= {where for _, where in sorted(group, key=lambda pair: -pair[0])[:count]}
    return chosen


def grouped(scores, scope):
    """(score, (parameter, flat index)) in groups that compete, each in order."""
    groups = {}
    for name, values in scores.items():
        shape, listed = SHAPES[name], values.reshape(-1).tolist()
        for index, value in enumerate(listed):
            if len(shape) < 2:
                row = 0
            else:  # outputs are the last dimension where transposed, else all but the last
                row = index % shape[-1] if name in TRANSPOSED else index // shape[-1]
            key = {
                "global": 0,
                "tensor": name,
                "block": place(name)[0] or name,
                "row": (name, row),
            }[scope]
            groups.setdefault(key, []).append((value, (name, index)))
    return groups.values()
