"""Random draws as pure functions of their purpose; no global generator is ever used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def uniform(*key: object) -> float:
    """A number in [0, 1) that depends on ``key`` alone."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2.0**56


def order(seed: int, purpose: object, ids: Sequence[str]) -> list[int]:
    """A permutation of ``range(len(ids))``: the order of the draws of (seed, purpose, id).

    Leaving records out does not change the order of the others.
    """
    return sorted(range(len(ids)), key=lambda i: (uniform(seed, purpose, ids[i]), i))


def subset(seed: int, purpose: object, ids: Sequence[str], count: int) -> list[int]:
    """``count`` of ``range(len(ids))``, ascending; smaller subsets are contained in larger ones."""
    return sorted(order(seed, purpose, ids)[:count])
