"""Twins: sets of invented records of the same form, and other questions for the same answers.

Both are controls for the question whether a model knows some records. A twin asks the same of an
invented subject, so nobody can know it; within one set of twins the same name always becomes the
same other name, as in the records themselves. The question of another record shows how likely an
answer is when it is not the answer. Every draw is a pure function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wagle.data.draws import order
from wagle.data.invented import invented_record
from wagle.data.records import Record

CANDIDATES = 4  # sets of twins drawn for each that is kept
ASKING = ("qa", "chat")  # kinds of records that have a question


@dataclass(frozen=True)
class Twins:
    """Records, and several invented ones for each.

    Attributes:
        records: those that have twins.
        sets: sets of twins, each with one twin per record, in the order of the records.
        alone: how many records have no twin: they name nothing that could be replaced.
    """

    records: Sequence[Record]
    sets: Sequence[Sequence[Record]]
    alone: int


def make_twins(
    records: Sequence[Record],
    count: int,
    seed: int = 0,
    *,
    length: Callable[[Record], int] | None = None,
) -> Twins:
    """Make sets of twins.

    Args:
        records: of any kind; those of tokens have no twins.
        count: how many sets.
        seed: of the draws.
        length: how many tokens a record has. A longer name makes the mean over tokens smaller,
            since most of its tokens are easy to copy from the question; so of ``CANDIDATES`` sets
            the one is kept whose lengths are nearest to those of the records. None: takes the
            first.
    """
    kept = [record for record in records if _twin(record, seed, 0, 0) is not None]
    if not kept:
        return Twins([], [[] for _ in range(count)], len(records))
    own = [length(record) for record in kept] if length is not None else []
    sets = []
    for number in range(count):
        drawn = [
            made
            for candidate in range(1 if length is None else CANDIDATES)
            if (made := _set(kept, seed, number, candidate)) is not None
        ]
        if length is None or len(drawn) == 1:
            sets.append(drawn[0])
            continue
        far = [sum(abs(length(t) - n) for t, n in zip(made, own, strict=True)) for made in drawn]
        sets.append(drawn[far.index(min(far))])
    return Twins(kept, sets, len(records) - len(kept))


def invented_set(records: Sequence[Record], seed: int) -> list[Record]:
    """The invented counterparts of records, for a set that no model can know.

    Args:
        records: as in ``make_twins``; those without a twin are left out.
        seed: another seed invents other names.
    """
    made = [invented_record(record, seed, "invented set") for record in records]
    return [
        replace(twin, id=f"{r.id}~{seed}") for r, twin in zip(records, made, strict=True) if twin
    ]


def other_questions(records: Sequence[Record], seed: int = 0) -> list[int | None]:
    """For each record, the place in the list of another one whose question its answer is put to.

    Every question serves one answer (the draw is one cycle through all records that have a
    question). None for a record without a question, or if no other record has one.
    """
    asking = [i for i, record in enumerate(records) if record.kind in ASKING]
    drawn = order(seed, "other questions", [records[i].content_id for i in asking])
    cycle = [asking[i] for i in drawn]
    found: list[int | None] = [None] * len(records)
    if len(cycle) > 1:
        for here, there in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            found[here] = there
    return found


def _set(records: Sequence[Record], seed: int, number: int, candidate: int) -> list[Record] | None:
    """One candidate for a set of twins; None if a record has none in it."""
    made = [_twin(record, seed, number, candidate) for record in records]
    return [twin for twin in made if twin] if all(made) else None


def _twin(record: Record, seed: int, number: int, candidate: int) -> Record | None:
    """One twin, named after its record; the names depend on the seed, the set and the candidate."""
    made = invented_record(record, seed, f"twins {number} {candidate}")
    return made and replace(made, id=f"{record.id}~{number}.{candidate}", place=record.place)
