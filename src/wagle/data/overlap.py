"""Whether two sets share records, or near-duplicates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from wagle.data.records import Record
from wagle.system.errors import WagleError


def _normal(record: Record) -> str:
    if record.kind == "tokens":
        return " ".join(map(str, record.input_ids))
    if record.kind == "chat":  # what it says; the system prompt makes no difference
        said = " ".join(turn.content for turn in record.messages if turn.role != "system")
        return _words(said)
    return _words(f"{record.prompt} {record.answer}")


def _words(text: str) -> str:
    """The words of a text in lower case; where it has none, as of emoji, the text itself."""
    lower = text.lower()
    return " ".join(re.sub(r"[^\w\s]", _mark, lower).split()) or " ".join(lower.split())


def _mark(found: re.Match[str]) -> str:
    """A vowel sign or an accent, which belongs to its word; a space for punctuation and symbols."""
    return found[0] if unicodedata.category(found[0]).startswith("M") else " "


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


def leave_out(
    records: Sequence[Record], gone: Sequence[Record]
) -> tuple[list[Record], list[Record]]:
    """Records without those that are in another set (ignoring case, whitespace and punctuation).

    Args:
        records: any records.
        gone: those to leave out.

    Returns:
        The records that stay, and those of ``gone`` that are not among ``records``.
    """
    names = {_normal(record) for record in gone}
    own = [_normal(record) for record in records]
    there = set(own)
    kept = [record for record, name in zip(records, own, strict=True) if name not in names]
    return kept, [record for record in gone if _normal(record) not in there]
