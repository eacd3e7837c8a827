"""Invented subjects: names that nobody has, and records that speak of them instead.

Three pure functions for the three steps: ``invented_name`` makes a name by (seed, key),
``find_names`` finds what looks like a name in a text, and ``rename`` puts others in their place.
``invented_record`` does all three for a record: its *twin* asks the same of a subject that no model
can have heard of.

No model finds the names. A name is a run of capitalised words, so nothing is found in a script
without capitals, or in a text that is all in lower case; and a word that is merely capitalised is
taken for a name. Where a twin is needed, both are harmless: the first gives no twin, the second a
twin that differs in one word more. Any resemblance of a name to a real one is coincidental.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from wagle.data.draws import uniform
from wagle.data.records import Record
from wagle.system.errors import choose


class Name(NamedTuple):
    """What looks like a name in a text.

    Attributes:
        text: the name as written, without a possessive ending.
        start: where it begins in the text.
        kind: ``person``, ``place`` or ``work``, by a guess from the words around it.
    """

    text: str
    start: int
    kind: str


KINDS = {"person": 2, "place": 1, "work": 2}
"""The kinds of names, and of how many words one consists unless told otherwise."""

_TOKEN = re.compile(r"(?<![\w@.])(?:[^\W\d_]\.(?= ?[^\W\d_])|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_MAIL = re.compile(r"\b[\w.%+-]+@[\w-]+(?:\.[\w-]+)+\b")
_BEFORE_PLACE = re.compile(
    r"\b(?:[Ii]n|[Aa]t|[Ff]rom|[Nn]ear|to|[Aa]round|[Aa]cross|city of|town of) $"
)
_BEFORE_WORK = re.compile(
    r"(?:[\"'\u2018\u201c\u00ab*_]|\b(?:[Tt]he|[Aa]|book|novel|film|song|play|titled?) )$"
)
_START = re.compile(
    r"(?:^|[.!?:\n]|[.!?:][\"'\u201d\u2019)]|\d[.)])\s*[-*]?\s*[\"'\u201c\u2018(\u00ab]*$"
)


@cache
def _words(which: str) -> tuple[str, ...]:
    """A list of ``invented.json``: syllables and words of names, and words that are no names."""
    text = Path(__file__).with_name("invented.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[which])


def invented_name(kind: str, seed: int, *key: object, words: int | None = None) -> str:
    """A name that nobody has: a pure function of its arguments.

    Args:
        kind: ``person`` (given names, then a surname), ``place`` or ``work`` (a title).
        seed: the seed of the draw.
        key: what else the draw depends on, such as a record's id.
        words: of how many words the name consists; None is two for a person and a title, and one
            for a place.

    Returns:
        The words, each capitalised, with a space between them.
    """
    count = choose(KINDS, kind, "kind of name") if words is None else max(words, 1)
    draw = (seed, "invented", kind, *key)
    if kind == "work":
        first = [_pick(_words("first_of_work"), *draw, n) for n in range(count - 1)]
        return " ".join([*first, _pick(_words("last_of_work"), *draw, "last")])
    last = _words("place") if kind == "place" else _words("surname")
    given = [_word(_words("given"), *draw, n) for n in range(count - 1)]
    return " ".join([*given, _word(last, *draw, "last")])


def find_names(text: str, known: Iterable[str] = ()) -> list[Name]:
    """What looks like a name in a text: runs of capitalised words, in their order.

    A single capitalised word at the start of a sentence is a name only if it is ``known``.

    Args:
        text: in any language with capitals.
        known: single words that are known to be (part of) a name.
    """
    sure, found = frozenset(known), []
    for start, words in _runs(text):
        alone = len(words) == 1 and words[0] not in sure
        if not alone or not _START.search(text[:start]):
            found.append(Name(" ".join(words), start, _kind(text[:start], words)))
    return found


def known_names(texts: Sequence[str]) -> frozenset[str]:
    """Words that are part of a name in one of the texts, away from the start of a sentence."""
    return frozenset(
        word for text in texts for name in find_names(text) for word in name.text.split()
    )


def renaming(texts: Sequence[str], seed: int, key: object) -> dict[str, str]:
    """Invented names for all names of some texts: {as written: invented}.

    The words of a person's name are renamed one by one, so that the surname alone becomes the
    surname of the same invented person. A name's new form depends on (seed, key, name) alone:
    under one key the same name becomes the same in every record.

    Args:
        texts: all texts of a record, the question first.
        seed: the seed of the draws.
        key: what else they depend on, such as the record's id, or the name of a set.
    """
    known = known_names(texts)
    names = [name for text in texts for name in find_names(text, known)]
    people = {w for name in names if name.kind == "person" for w in _parts(name.text)}
    taken = {word for name in names for word in name.text.split()}
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.kind != "person"):
        parts = _parts(name.text)
        if name.kind == "person" or set(parts) <= people:
            found |= {
                word: _other(word, "person", seed, key, taken, last=word == parts[-1])
                for word in parts
                if word not in found
            }
        elif parts and name.text not in found:
            core = name.text[name.text.index(parts[0]) : name.text.rindex(parts[-1])] + parts[-1]
            found[core] = _other(core, name.kind, seed, key, taken, words=len(parts))
    mails = {mail for text in texts for mail in _MAIL.findall(text)}
    return found | {mail: _mail(mail, seed, key) for mail in sorted(mails)}


def rename(text: str, names: Mapping[str, str]) -> str:
    """The text with every name of ``names`` replaced, longer ones first."""
    if not names:
        return text
    longest = sorted(names, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in longest)
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda found: names[found[0]], text)


def swap_numbers(text: str, seed: int, key: object) -> str:
    """The text with other numbers of as many digits; a year keeps its century.

    Equal numbers stay equal under one key. A single digit stays: it is seldom about the subject.
    """

    def other(found: re.Match[str]) -> str:
        low, high = _range(found[0])
        new = low + int(uniform(seed, "number", key, found[0]) * (high - low))
        return str(new if new != int(found[0]) else low + (new - low + 1) % (high - low))

    return re.sub(r"(?<![\w.,])[0-9]{2,}(?![\w])(?![.,][0-9])", other, text)


def _range(digits: str) -> tuple[int, int]:
    """Where another number of the same form lies: from the first to before the second."""
    value, size = int(digits), 10 ** (len(digits) - 1)
    if 1000 <= value < 2100:  # a year, of the same century and not in the future
        return value // 100 * 100, 2025 if value >= 2000 else value // 100 * 100 + 100
    return (10, 29) if value <= 31 else (size, 10 * size)  # up to 31, it may be a day


def invented_record(
    record: Record, seed: int, key: object = None, *, numbers: bool = True
) -> Record | None:
    """The record's twin: the same record about an invented subject.

    Every text of it is renamed in the same way, and the numbers in its answers become others.

    Args:
        record: of any kind but ``tokens``.
        seed: the seed of the draws.
        key: what else they depend on; None is the record's id. With one key for a whole set, its
            twins speak of the same invented subjects as its records do of the real ones.
        numbers: whether the numbers in answers and texts become others too.

    Returns:
        The twin, without an id (``read_records`` gives it one); None if its question (of a text:
        the text) has no name to replace.
    """
    own = record.id if key is None else key
    texts = _texts(record)
    names = renaming(texts, seed, own)
    asked = f"{record.prompt}\n{record.answer}" if record.kind == "text" else record.prompt
    if record.kind == "tokens" or rename(asked, names) == asked:
        return None

    def asks(text: str) -> str:
        return rename(text, names)

    def says(text: str) -> str:
        return swap_numbers(rename(text, names), seed, own) if numbers else rename(text, names)

    paraphrased = (record.paraphrased_prompt, record.paraphrased_answer)
    return replace(
        record,
        id="",
        prompt=asks(record.prompt),
        answer=says(record.answer),
        paraphrased_prompt=None if paraphrased[0] is None else asks(paraphrased[0]),
        paraphrased_answer=None if paraphrased[1] is None else says(paraphrased[1]),
        perturbed_answers=tuple(map(says, record.perturbed_answers)),
        alternatives=tuple(map(says, record.alternatives)),
        decomposed=tuple(map(asks, record.decomposed)),
        translations=tuple(map(asks, record.translations)),
        few_shot=tuple((asks(question), says(answer)) for question, answer in record.few_shot),
        messages=tuple(
            turn._replace(content=(says if turn.role == "assistant" else asks)(turn.content))
            for turn in record.messages
        ),
    )


def _runs(text: str) -> list[tuple[int, list[str]]]:
    """Runs of capitalised words, each with its start; small words may stand between the others."""
    runs: list[tuple[int, list[str]]] = []
    links: list[str] = []  # small words that belong to the run if a capitalised one follows
    end = -1  # where the open run ends; -1 if none is open
    for found in _TOKEN.finditer(text):
        word, joined = _POSSESSIVE.sub("", found[0]), 0 <= end == found.start() - 1
        joined = joined and text[end] == " "
        small = word.casefold()
        if joined and small in _words("links") and (small != "the" or links == ["of"]):
            links.append(word)
            end = found.end()
            continue
        starts = word[0].isupper() and small not in _words("calendar")
        if starts and joined:
            runs[-1][1].extend([*links, word])
        elif starts and small not in _words("starters"):
            runs.append((found.start(), [word]))
        else:
            starts = False
        links = []
        end = found.end() if starts and word == found[0] else -1  # a possessive ends its run
    return [(start, words) for start, words in runs if _parts(" ".join(words))]


def _parts(name: str) -> list[str]:
    """The words of a name that are renamed: not its small ones, nor ``Prize`` or ``Dr``."""
    rest = {*_words("links"), *_words("generic"), *_words("starters")}
    return [word for word in name.split() if word.casefold().rstrip(".") not in rest]


def _kind(before: str, words: Sequence[str]) -> str:
    """A guess from what stands before a name, and from its small words."""
    if _BEFORE_WORK.search(before) or any(w.casefold() in _words("starters") for w in words):
        return "work"
    return "place" if _BEFORE_PLACE.search(before) and len(words) == 1 else "person"


def _texts(record: Record) -> list[str]:
    """All texts of a record that are about its subject, the question first."""
    shots = [text for shot in record.few_shot for text in shot]
    turns = [turn.content for turn in record.messages if turn.role != "system"]
    optional = (record.paraphrased_prompt, record.paraphrased_answer)
    several = (record.perturbed_answers, record.alternatives, record.decomposed)
    more = [text for texts in (*several, record.translations) for text in texts]
    every = (record.prompt, record.answer, *optional, *more, *shots, *turns)
    return [text for text in every if text]


def _pick(words: Sequence[str], *key: object) -> str:
    return words[int(uniform(*key) * len(words))]


def _word(ends: Sequence[str], *key: object) -> str:
    """An invented word of two or three syllables, capitalised."""
    start = _pick(_words("onsets"), *key, "onset") + _pick(_words("vowels"), *key, "vowel")
    return (
        start + _pick(_words("middles"), *key, "middle") + _pick(ends, *key, "end")
    ).capitalize()


def _other(
    name: str,
    kind: str,
    seed: int,
    key: object,
    taken: Iterable[str],
    *,
    words: int = 1,
    last: bool = True,
) -> str:
    """An invented form of a name, or of one word of a person's, that is no word of the record."""
    if kind == "person" and name.endswith("."):
        return "ABCDEFGHJKLMNOPRSTVW"[int(uniform(seed, "initial", key, name) * 20)] + "."
    for attempt in range(8):
        draw = (seed, "invented", kind, key, name, attempt)
        if kind == "person":
            new = _word(_words("surname") if last else _words("given"), *draw)
        else:
            new = invented_name(kind, seed, key, name, attempt, words=words)
        if not set(new.split()) & set(taken):
            break
    return new


def _mail(mail: str, seed: int, key: object) -> str:
    """An e-mail address of the same form that nobody has."""
    local, domain = (
        _word(_words("given"), seed, "mail", key, mail, part).lower() for part in (0, 1)
    )
    return f"{local}@{domain}.example"
