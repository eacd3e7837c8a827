"""Invented authors and plain world facts, for a demo that downloads no data.

Eight authors who do not exist, with twelve facts about each, in the TOFU schema, and a list of
facts that most chat models know. Everything is written out by hand in ``demo.json`` next to this
file, so the same call gives the same records on every machine. No fact about an author follows from
the name or the question, so a model can answer only if it was trained to. Any resemblance to a real
person, book or prize is coincidental.

An author's answer restates its question in one sentence of 8 to 16 words, gives the author's full
name and states the one fact asked for. The paraphrased one has at least the surname, and {} where
the fact goes, ``right`` or one of ``wrong``. Where authors are asked the same kind of question, the
sentences mostly differ in form.

The world facts were chosen by topic before anything was measured, as facts that a 135M-parameter
chat model probably knows; {} marks the fact in their answers. Facts dropped since: none so far.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

DEMO_SETS = ("forget", "retain", "retain_heldout", "general")


def demo_records(which: str, unit: int = 0) -> list[dict[str, object]]:
    """Return the records of one demo set: the same on every call, and free to modify.

    Args:
        which: a name in ``DEMO_SETS``. ``forget`` has 24 records of 2 authors, ``retain`` 48 of 4
            others, ``retain_heldout`` 24 of another 2, ``general`` 24 world facts.
        unit: which authors are in which of the first three sets: 0 is the demo itself; 1 to 27
            forget other pairs, all of them different; after that they repeat.

    Returns:
        One new dict per record, with the strings ``question`` and ``answer`` and a list of wrong
        answers, ``perturbed_answer``: 5 for an author's record, 3 for a world fact. An author's
        record also has ``paraphrased_question`` and ``paraphrased_answer``; its wrong answers
        have the same form as the paraphrased one.

    Raises:
        ValueError: there is no such set.
    """
    if which == "general":
        return [_world_fact(fact) for topic in _texts()["world"] for fact in topic["facts"]]
    if which not in DEMO_SETS:
        raise ValueError(f"unknown demo set {which!r} (known: {', '.join(DEMO_SETS)})")
    authors = _texts()["authors"]
    return [_author_fact(fact) for i in _cast(unit)[which] for fact in authors[i]["facts"]]


@cache
def _texts() -> dict[str, Any]:
    """The contents of ``demo.json``: ``authors`` and ``world``, each a list of groups of facts."""
    text = Path(__file__).with_name("demo.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


_SEATS = (1, 2, 4, 6, 7, 5, 3)  # so that the first pairing below is the order of the text


def _cast(unit: int) -> dict[str, list[int]]:
    """The authors of every set, in file order.

    The pairs to forget are those of a tournament in which each of the eight meets every other once:
    author 0 stays, the others move one seat per round. So units 0 to 3, 4 to 7, ... forget every
    author once. The held-out pair is the previous one in the same round.
    """
    turn, moves = unit % 4, unit // 4 % 7
    seats = [*_SEATS[moves:], *_SEATS[:moves]]
    pairs = [(0, seats[0]), *((seats[i], seats[-i]) for i in (1, 2, 3))]
    forget, heldout = set(pairs[turn]), set(pairs[turn - 1])
    sets = {"forget": forget, "retain_heldout": heldout, "retain": {*range(8)} - forget - heldout}
    return {name: sorted(places) for name, places in sets.items()}


def _author_fact(fact: dict[str, Any]) -> dict[str, object]:
    frame = fact["paraphrased_answer"]
    return {
        "question": fact["question"],
        "answer": fact["answer"],
        "paraphrased_question": fact["paraphrased_question"],
        "paraphrased_answer": frame.format(fact["right"]),
        "perturbed_answer": [frame.format(wrong) for wrong in fact["wrong"]],
    }


def _world_fact(fact: dict[str, Any]) -> dict[str, object]:
    frame = fact["answer"]
    return {
        "question": fact["question"],
        "answer": frame.format(fact["right"]),
        "perturbed_answer": [frame.format(wrong) for wrong in fact["wrong"]],
    }
