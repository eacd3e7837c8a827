"""Whether two sets share records, or near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wagle.data.records import Record
from wagle.system.errors import WagleError


def _normal(record: Record) -> str:
    if record.kind == "tokens":
        return " ".join(map(str, record.input_ids))
    if record.kind == "chat":  # what it says; the system prompt makes no difference
        said = " ".join(turn.content for turn in record.messages if turn.role != "system")
        return " ".join(re.findall(r"\w+", said.lower()))
    return " ".join(re.findall(r"\w+", f"{record.prompt} {record.answer}".lower()))


def check_disjoint(one: Sequence[Record], other: Sequence[Record], *, allow: bool = False) -> None:
    """Refuse two sets that share records (ignoring case, whitespace and punctuation).

    Args:
        one: the first set, usually forget.
        other: the second set.
        allow: let an overlap pass (``overlap: allow``).
    """
    if allow:
        return
    homes = {_normal(record): record.place for record in one}
    shared = [(homes[n], r.place) for r in other if (n := _normal(r)) in homes]
    if shared:
        raise WagleError(
            f"{shared[0][0]} and {shared[0][1]} are the same record ({len(shared)} in both sets); "
            "remove them from one set, or set overlap: allow"
        )


def near_duplicates(
    one: Sequence[Record], other: Sequence[Record], share: float = 0.8
) -> list[tuple[str, str]]:
    """Places of records that share at least ``share`` of their distinct words (Jaccard)."""
    found = []
    bags = [(record.place, frozenset(_normal(record).split())) for record in other]
    for record in one:
        words = frozenset(_normal(record).split())
        for place, bag in bags:
            if len(words & bag) >= share * len(words | bag):
                found.append((record.place, place))
    return found
