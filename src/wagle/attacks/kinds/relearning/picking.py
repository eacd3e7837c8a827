"""The records that relearning teaches, and those that it holds out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from wagle.data.draws import subset
from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Record, Source
from wagle.system.errors import WagleError


class Picked(NamedTuple):
    """The records of an attack.

    Attributes:
        records: what is taught, in the order of its set.
        held_out: the forget records that are not taught, not even as exact repeats: what comes back
            there was not just taught.
    """

    records: list[Record]
    held_out: list[Record]


def pick_exact(forget: Source, share: float, *, seed: int = 0) -> Picked:
    """Take the first records of a fixed permutation of the forget set.

    Args:
        forget: the records that were forgotten.
        share: the share to take, 0 < share <= 1; at least one record. Smaller shares are contained
            in larger ones.
        seed: the permutation is a function of (seed, record id).
    """
    gone = read_records(forget, name="forget", seed=seed)
    picked = _draw(gone, _count(len(gone), share), seed)
    told = {record.content_id for record in picked}
    return Picked(picked, [record for record in gone if record.content_id not in told])


def pick_benign(forget: Source, other: Source, share: float, *, seed: int = 0) -> Picked:
    """Take as many records from another set as ``pick_exact`` would from the forget set.

    Args:
        forget: the records that were forgotten; all of them are held out.
        other: records of the same format, from the retain set or unrelated.
        share: as in ``pick_exact``, of the forget records.
        seed: the draw is a function of (seed, record id).

    Raises:
        WagleError: the sets share a record, or ``other`` has too few records.
    """
    gone = read_records(forget, name="forget", seed=seed)
    kept = read_records(other, name="benign", seed=seed)
    check_disjoint(gone, kept)
    count = _count(len(gone), share)
    if count > len(kept):
        raise WagleError(
            f"a share of {share} of {len(gone)} forget records asks for {count} benign ones, and "
            f"there are {len(kept)}; give more, or lower the share"
        )
    return Picked(_draw(kept, count, seed), gone)


def _count(records: int, share: float) -> int:
    if not 0 < share <= 1:
        raise WagleError(f"share is {share}; give a share of the forget records, 0 < share <= 1")
    return max(1, math.floor(Fraction(str(share)) * records))


def _draw(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    return [records[i] for i in subset(seed, "relearning", [r.id for r in records], count)]
