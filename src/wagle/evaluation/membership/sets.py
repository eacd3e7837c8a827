"""The two sets of membership attacks: that they share nothing, and what words alone tell of them.

The sets are ``forget`` and ``holdout``, records of the same kind that no model was trained on.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

from wagle.data.records import Record
from wagle.metrics.membership import bag_of_words
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)

WITHOUT_EOS = "answers are scored without their EOS"
WITH_EOS = "as in OpenUnlearning, loss and zlib count an answer's EOS, the other attacks do not"


def compare_sets(
    texts: Mapping[str, Mapping[str, str]], seed: int, *, words: bool = True
) -> str | None:
    """Refuse shared texts; say what words alone reveal about the two sets; warn if that is much.

    Args:
        texts: the texts of ``forget`` and ``holdout``, by place.
        seed: for the folds.
        words: check what words alone reveal.

    Returns:
        What the reader of membership attacks needs to know, or None.

    Raises:
        WagleError: a text is in both sets.
    """
    known, new = ({t: place for place, t in texts[n].items()} for n in ("forget", "holdout"))
    shared = [text for text in known if text in new]
    if shared:
        raise WagleError(
            f"{known[shared[0]]} and {new[shared[0]]} are the same text ({len(shared)} shared "
            "in all); a holdout set must never be trained on"
        )
    if not words:
        return None
    if min(len(known), len(new)) < 2 or importlib.util.find_spec("sklearn") is None:
        return (
            "not checked whether words alone tell the sets apart (needs scikit-learn, and two "
            "texts of each)"
        )
    return told_by_words(tuple(known), tuple(new), seed)


@lru_cache(maxsize=4)  # a run asks about the same sets for every one of its models
def told_by_words(forget: tuple[str, ...], holdout: tuple[str, ...], seed: int) -> str | None:
    """A note if words alone tell the sets apart; also logged as a warning the first time."""
    warning = bag_of_words(forget, holdout, seed).warning
    if warning:
        logger.warning(warning)
    return warning


def compare_records(
    forget: Sequence[Record], holdout: Sequence[Record], seed: int, said: str = WITHOUT_EOS
) -> str:
    """``compare_sets`` for records: its note, and whether answers count with their EOS."""
    sets = {"forget": forget, "holdout": holdout}
    texts = {name: {r.place: _whole_text(r) for r in records} for name, records in sets.items()}
    warning = compare_sets(texts, seed)
    return said if warning is None else f"{said}; {warning}"


def _whole_text(record: Record) -> str:
    if record.kind == "tokens":
        return " ".join(map(str, record.input_ids))
    said = [turn.content for turn in record.messages] or [record.prompt, record.answer]
    return " ".join(said).strip()
