"""Records: what is read from files, data sets and lists, checked and given stable names.

To read another kind of file: a function in READERS that yields (line, dict). To know another field
name: an alias in _ALIASES.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from wagle.data.chat import Turn, parse_chat, to_last_answer
from wagle.data.demo import DEMO_SETS, demo_records
from wagle.data.draws import subset, uniform
from wagle.data.refusals import REFUSALS
from wagle.errors import WagleError, choose, nearest

if TYPE_CHECKING:
    from datasets import Dataset

_Read: TypeAlias = "Iterator[tuple[int | None, Mapping[str, Any]]]"  # with the line, if known
Source: TypeAlias = "str | Path | Sequence[Mapping[str, Any]] | Sequence[Record] | Dataset"


@dataclass(frozen=True)
class Record:
    """One item of data: a question with an answer, a chat, a text, or tokens made elsewhere.

    Attributes:
        kind: ``qa``, ``chat``, ``text`` or ``tokens``.
        prompt: the question (``qa``; ``chat``: the last user turn before the last answer), or a
            beginning that is not scored (``text``).
        answer: the answer (``qa``; ``chat``: the last assistant turn) or the text (``text``).
        paraphrased_prompt: the same question in other words, never trained on.
        paraphrased_answer: the same answer in other words.
        perturbed_answers: wrong answers of the same form.
        alternatives: other answers that an objective may teach instead.
        decomposed: simpler questions, whose answers together are the answer; never trained on.
        translations: the same question in other languages, never trained on.
        refusal: the answer of refusal objectives; drawn per (seed, id) where none is given.
        few_shot: (question, answer) pairs that come before the question.
        messages: the turns (``chat``).
        given: how many turns come before the first that is scored (``chat``); of the others, those
            of the assistant are.
        input_ids: the tokens (``tokens``).
        labels: the tokens that are scored, -100 elsewhere, unshifted (``tokens``).
        id: 16 hex digits of SHA-256 over the content, with ``#n`` for exact repeats. Internal:
            it can be guessed from a short record, so it never leaves a private folder.
        place: where the record stands, as messages show it: ``forget[17]``.
        domain: which of several joined sources it comes from.
        weight: how often its source is drawn relative to the others; None: by its size.
    """

    kind: str
    prompt: str = ""
    answer: str = ""
    paraphrased_prompt: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    decomposed: tuple[str, ...] = ()
    translations: tuple[str, ...] = ()
    refusal: str = ""
    few_shot: tuple[tuple[str, str], ...] = ()
    messages: tuple[Turn, ...] = ()
    given: int = 0
    input_ids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    id: str = ""
    place: str = ""
    domain: int = 0
    weight: float | None = None

    @property
    def content_id(self) -> str:
        """The id without the number that tells exact repeats apart."""
        return self.id.partition("#")[0]

    def content(self) -> dict[str, Any]:
        """The fields that make the record what it is, without its name and its place."""
        names = {"id", "place", "refusal", "domain", "weight"}
        if self.kind == "chat":
            names |= {"prompt", "answer"}  # which stand in the messages
        own = {k: v for k, v in vars(self).items() if k not in names}
        return {k: v for k, v in own.items() if v}


_ALIASES = {
    "prompt": ("question", "prompt", "instruction"),
    "answer": ("answer", "response", "completion", "gt"),
    "paraphrased_prompt": ("paraphrased_question", "paraphrased_prompt"),
    "paraphrased_answer": ("paraphrased_answer",),
    "perturbed_answers": ("perturbed_answer", "perturbed_answers"),
    "alternatives": ("alternatives", "alternative"),
    "decomposed": ("decomposed", "decomposed_questions"),
    "translations": ("translations", "translated_questions"),
    "refusal": ("refusal",),
    "few_shot": ("few_shot",),
    "messages": ("messages", "conversations"),
    "text": ("text",),
    "prefix": ("prefix",),
    "input_ids": ("input_ids",),
    "labels": ("labels",),
}
_FIELD = {alias: field for field, aliases in _ALIASES.items() for alias in aliases}
_LISTS = {
    "perturbed_answers",
    "alternatives",
    "decomposed",
    "translations",
    "few_shot",
    "messages",
    "input_ids",
    "labels",
}
_NOT_OF_CHATS = (
    "few_shot",
    "paraphrased_prompt",
    "paraphrased_answer",
    "perturbed_answers",
    "decomposed",
    "translations",
)
_NOT_FIELDS = re.compile(r"^(option\d+|id|metadata|attention_mask|source|title|url|doi|subject)$")


def parse_record(row: Mapping[str, Any], place: str) -> Record:
    """Make a record of a dict in any of the known shapes; what is missing is named.

    Raises:
        WagleError: an empty text, question or answer; neither ``text`` nor a question with an
            answer nor ``messages`` nor ``input_ids`` with ``labels``; a chat that is none; labels
            that score nothing.
    """
    if not isinstance(row, Mapping):
        raise WagleError(
            f"{place} is {type(row).__name__}, not a dict; of a DatasetDict, give one split"
        )
    got = {_FIELD[k]: v for k, v in row.items() if k in _FIELD and v is not None}
    if "input_ids" in got:
        return _token_record(got, place)
    if "messages" in got or any(_are_messages(got.get(field)) for field in ("prompt", "answer")):
        return _chat_record(got, place)
    if "text" in got:
        text = _words(got, "text", place)
        return Record("text", prompt=str(got.get("prefix", "")), answer=text, place=place)
    if "prompt" not in got or "answer" not in got:
        keys = [k for k in row if not _NOT_FIELDS.match(k)]
        hints = [
            f"{k!r} looks like {n!r}" for k in keys if k not in _FIELD and (n := nearest(k, _FIELD))
        ]
        raise WagleError(
            f"{place} has the fields {sorted(row)}; a record needs question and answer, or "
            f"messages, or text, or input_ids and labels"
            + (f" ({'; '.join(hints)})" if hints else "")
        )
    return Record(
        "qa",
        prompt=_words(got, "prompt", place),
        answer=_words(got, "answer", place),
        paraphrased_prompt=_optional(got, "paraphrased_prompt", place),
        paraphrased_answer=_optional(got, "paraphrased_answer", place),
        perturbed_answers=_several(got, "perturbed_answers", place),
        alternatives=_several(got, "alternatives", place),
        decomposed=_several(got, "decomposed", place),
        translations=_several(got, "translations", place),
        refusal=str(got.get("refusal", "")),
        few_shot=_shots(got.get("few_shot", ()), place),
        place=place,
    )


def _words(got: Mapping[str, Any], field: str, place: str) -> str:
    value = got[field]
    if not isinstance(value, str):
        raise WagleError(f"{place}: {field} is {type(value).__name__}, not text")
    if not value.strip():
        raise WagleError(f"{place} has an empty {field}; remove the record or fill it in")
    return value


def _optional(got: Mapping[str, Any], field: str, place: str) -> str | None:
    return _words(got, field, place) if got.get(field) else None


def _several(got: Mapping[str, Any], field: str, place: str) -> tuple[str, ...]:
    value = got.get(field, ())
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise WagleError(f"{place}: {field} is {type(value).__name__}, not a list of texts")
    return tuple(str(v) for v in value)


def _shots(value: Any, place: str) -> tuple[tuple[str, str], ...]:
    pairs = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise WagleError(f"{place}: few_shot must be a list of [question, answer] pairs")
    return tuple((str(q), str(a)) for q, a in pairs)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _chat_record(got: Mapping[str, Any], place: str) -> Record:
    more = [field for field in _NOT_OF_CHATS if got.get(field)]
    if more:
        raise WagleError(
            f"{place}: {more[0]} does not go with messages; refusal and alternatives do"
        )
    turns, given = parse_chat(got.get("messages"), got.get("prompt"), got.get("answer"), place)
    *before, last = to_last_answer(turns)
    asked = [turn.content for turn in before if turn.role == "user"]
    return Record(
        "chat",
        prompt=asked[-1] if asked else "",
        answer=last.content,
        alternatives=_several(got, "alternatives", place),
        refusal=str(got.get("refusal", "")),
        messages=turns,
        given=given,
        place=place,
    )


def _token_record(got: Mapping[str, Any], place: str) -> Record:
    try:
        ids = tuple(int(i) for i in got["input_ids"])
        labels = tuple(int(i) for i in got.get("labels", ()))
    except (TypeError, ValueError):
        raise WagleError(f"{place}: input_ids and labels must be lists of whole numbers") from None
    if not ids or len(ids) != len(labels):
        raise WagleError(
            f"{place} has {len(ids)} input_ids and {len(labels)} labels; give as many labels, "
            "unshifted, -100 where nothing is scored"
        )
    wrong = [i for i, (a, b) in enumerate(zip(ids, labels, strict=True)) if b not in (-100, a)]
    if wrong:
        raise WagleError(f"{place}: label {wrong[0]} is neither -100 nor its own input id")
    if all(label == -100 for label in labels[1:]):
        raise WagleError(f"{place} has no scored token: every label (after the first) is -100")
    return Record("tokens", input_ids=ids, labels=labels, place=place)


# ---------------------------------------------------------------------------------------------
# Reading


def _json_lines(path: Path) -> _Read:
    """JSON lines, also under the name .json (as TOFU's are), or one JSON list."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            yield from ((None, row) for row in json.loads(text))
        except json.JSONDecodeError as error:
            raise WagleError(f"{path} is not valid JSON ({error})") from None
        return
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold U+2028 and its kind
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise WagleError(f"{path}, line {number}, is not valid JSON ({error})") from None


def _csv_rows(path: Path) -> _Read:
    """CSV with a header; a list field may hold a JSON list."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row:
                raise WagleError(
                    f"{path}, line {reader.line_num}, has more cells than the header has names"
                )
            try:
                values = {
                    k: json.loads(v) if v.startswith("[") and _FIELD.get(k) in _LISTS else v
                    for k, v in row.items()
                    if v
                }
            except json.JSONDecodeError as error:
                raise WagleError(
                    f"{path}, line {reader.line_num}, has a list that is not valid JSON ({error})"
                ) from None
            yield reader.line_num, values


READERS: dict[str, Callable[[Path], _Read]] = {
    ".json": _json_lines,
    ".jsonl": _json_lines,
    ".csv": _csv_rows,
}


def _rows_of_file(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with where it stands."""
    reader = choose(READERS, path.suffix, f"file type of {path}")
    try:
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise WagleError(f"{path} is not UTF-8 text ({error})") from None
    if not all(isinstance(row, Mapping) for _, row in rows):
        raise WagleError(f"{path} must hold one JSON object per record")
    return [(str(path) if n is None else f"{path}, line {n}", row) for n, row in rows]


def _rows_of_folder(folder: Path, split: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """A folder of splits, such as TOFU's.

    ``forget01`` is read with what its ``forget01_perturbed`` adds (paraphrases and wrong answers),
    where that exists.
    """
    names = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in READERS}
    if not names:
        raise WagleError(f"{folder} holds no {', '.join(READERS)} files")
    if split is None:
        raise WagleError(f"{folder} is a folder: name a split (it has {', '.join(names)})")
    rows = _rows_of_file(choose(names, split, f"split of {folder}"))
    more = names.get(f"{split}_perturbed")
    if more is None:
        return rows
    added = {(r["question"], r["answer"]): r for _, r in _rows_of_file(more)}
    return [(w, {**row, **added.get((row["question"], row["answer"]), {})}) for w, row in rows]


def _rows(
    source: Source, split: str | None, name: str
) -> list[tuple[str, Mapping[str, Any] | Record]]:
    """The rows of any source, each with where in a file it stands."""
    if isinstance(source, str | Path):
        try:
            return [*_rows_of_path(source, split)]
        except WagleError as error:
            raise WagleError(f"{name}: {error}") from None
    try:
        rows = iter(source)
    except TypeError:
        kind = "None" if source is None else f"of type {type(source).__name__}"
        raise WagleError(
            f"the {name} set is {kind}; give a file, a datasets.Dataset, or a list of dicts or records"
        ) from None
    return [("", row) for row in rows]


def _rows_of_path(source: str | Path, split: str | None) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The rows of a demo set, a file or a folder."""
    if isinstance(source, str) and source.startswith("demo:"):
        name, at, unit = source.removeprefix("demo:").partition("@")
        choose(dict.fromkeys(DEMO_SETS), name, "demo set")
        if at and not unit.isdecimal():
            raise WagleError(f"{source} is no demo set; write demo:{name}@N with a whole number N")
        return [("", row) for row in demo_records(name, int(unit or 0))]
    path = Path(source)
    if path.is_dir():
        return _rows_of_folder(path, split)
    if not path.is_file():
        raise WagleError(f"data file {path} does not exist")
    return _rows_of_file(path)


def _slice(count: int, rows: str) -> slice:
    found = re.fullmatch(r"(\d*):(\d*)", rows)
    if not found:
        raise WagleError(f"rows {rows!r} is not a range; write FIRST:LAST, such as 0:360 or 20:")
    first, last = (int(v) if v else None for v in found.groups())
    if (first or 0) >= (last if last is not None else count) or (last or 0) > count:
        raise WagleError(f"rows {rows} select nothing or too much: there are {count} records")
    return slice(first, last)


def read_records(
    source: Source,
    *,
    name: str = "records",
    split: str | None = None,
    rows: str | None = None,
    take: str | int = "all",
    seed: int = 0,
) -> list[Record]:
    """Read, check and name records.

    Args:
        source: a JSON, JSON-lines or CSV file; a folder of them (a local TOFU folder) with
            ``split``; ``demo:forget`` and its kind; a ``datasets.Dataset``; a list of dicts or of
            records.
        name: what messages call the set.
        split: the file of a folder, without its ending.
        rows: a range of rows, ``FIRST:LAST``, before ``take``.
        take: ``all``, a count, or a percentage such as ``"10%"``: a subset drawn by (seed, id);
            smaller subsets are contained in larger ones. The order of the file is kept.
        seed: of the draws of ``take`` and of the refusals.

    Returns:
        The records, each with its id, its place and its refusal.
    """
    records = [
        row
        if isinstance(row, Record)
        else parse_record(row, f"{name}[{i}] of {where}" if where else f"{name}[{i}]")
        for i, (where, row) in enumerate(_rows(source, split, name))
    ]
    if rows is not None:
        records = records[_slice(len(records), rows)]
    records = _take(_named(records, seed), take, name, seed)
    if not records:
        raise WagleError(f"the {name} set is empty; it needs at least one record")
    return [replace(r, place=f"{name}[{i}]") for i, r in enumerate(records)]


def _named(records: Iterable[Record], seed: int) -> list[Record]:
    seen: Counter[str] = Counter()
    named = []
    for record in records:
        text = json.dumps(record.content(), sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[digest] += 1
        unique = digest if seen[digest] == 1 else f"{digest}#{seen[digest]}"
        refusal = record.refusal or REFUSALS[int(uniform(seed, "refusal", unique) * len(REFUSALS))]
        named.append(replace(record, id=unique, refusal=refusal))
    return named


def _take(records: list[Record], take: str | int, name: str, seed: int) -> list[Record]:
    if take == "all":
        return records
    text = str(take)
    found = re.fullmatch(r"(\d+)(%?)", text)
    if not found:
        raise WagleError(
            f"{name}.take is {text!r}; write all, a count, or a percentage such as 10%"
        )
    count = len(records) * int(found[1]) // 100 if found[2] else int(found[1])
    if not 0 < count <= len(records):
        raise WagleError(f"{name}.take asks for {count} of {len(records)} records")
    return [records[i] for i in subset(seed, "take", [r.id for r in records], count)]


# ---------------------------------------------------------------------------------------------
# Overlap


def _normal(record: Record) -> str:
    if record.kind == "tokens":
        return " ".join(map(str, record.input_ids))
    if record.kind == "chat":  # what it says; how the model was told to behave is no difference
        said = " ".join(turn.content for turn in record.messages if turn.role != "system")
        return " ".join(re.findall(r"\w+", said.lower()))
    return " ".join(re.findall(r"\w+", f"{record.prompt} {record.answer}".lower()))


def check_disjoint(one: Sequence[Record], other: Sequence[Record], *, allow: bool = False) -> None:
    """Refuse two sets that share records (up to case, blanks and punctuation).

    Args:
        one: the first set, forget as a rule.
        other: the second set.
        allow: let an overlap pass (``overlap: allow``).
    """
    if allow:
        return
    homes = {_normal(record): record.place for record in one}
    shared = [(homes[n], r.place) for r in other if (n := _normal(r)) in homes]
    if shared:
        raise WagleError(
            f"{shared[0][0]} and {shared[0][1]} are the same record ({len(shared)} shared in all); "
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
