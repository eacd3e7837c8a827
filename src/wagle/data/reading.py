"""Read records from files, folders, data sets and lists.

To add a format, write a reader here, its entry in READERS, and a test next to the others.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wagle.data.demo import DEMO_SETS, demo_records
from wagle.data.draws import subset, uniform
from wagle.data.records import FIELD, LISTS, Read, Record, Source, parse_record
from wagle.data.refusals import REFUSALS
from wagle.system.errors import WagleError, choose
from wagle.system.files.reading import one_line, parse_json, read_text
from wagle.system.plugins import find, installed, is_path

LARGEST = 1 << 32  # bytes of a file of records


def _json_lines(path: Path) -> Read:
    """JSON lines, also in a file named .json (as in TOFU), or a single JSON list.

    NaN is read: others write it where a value is missing.
    """
    text, where = read_text(path, LARGEST), one_line(path)
    if text.lstrip().startswith("["):
        yield from ((None, row) for row in parse_json(text, where, finite=False))
        return
    for number, line in enumerate(text.split("\n"), 1):  # a text may contain U+2028 and the like
        if line.strip():
            yield number, parse_json(line, f"{where}, line {number},", finite=False)


def _csv_rows(path: Path) -> Read:
    """CSV with a header; a list field may hold a JSON list."""
    reader = csv.DictReader(io.StringIO(read_text(path, LARGEST), newline=""))
    where = one_line(path)
    try:
        for row in reader:
            line = f"{where}, line {reader.line_num},"
            if None in row:
                raise WagleError(f"{line} has more cells than the header has names")
            yield reader.line_num, {k: _cell(k, v, line) for k, v in row.items() if v}
    except csv.Error as error:
        hint = "; JSON lines take texts of any length" if "limit" in str(error) else ""
        line = f"{where}, line {reader.reader.line_num},"
        raise WagleError(f"{line} is not valid CSV ({error}){hint}") from None


def _cell(name: str, text: str, line: str) -> Any:
    listed = text.startswith("[") and FIELD.get(name) in LISTS
    return parse_json(text, f"{line} has a list that") if listed else text


READERS: dict[str, Callable[[Path], Read]] = {
    ".json": _json_lines,
    ".jsonl": _json_lines,
    ".csv": _csv_rows,
}


def _rows_of_file(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with its location."""
    reader = choose(READERS, path.suffix, f"file type of {one_line(path)}")
    rows = list(reader(path))
    if not all(isinstance(row, Mapping) for _, row in rows):
        raise WagleError(f"{one_line(path)} must hold one JSON object per record")
    return [(str(path) if n is None else f"{path}, line {n}", row) for n, row in rows]


def _rows_of_folder(folder: Path, split: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of one split of a folder of splits, such as TOFU's.

    ``forget01`` is read together with what ``forget01_perturbed``, if present, adds (paraphrases
    and wrong answers).
    """
    names = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix in READERS}
    if not names:
        raise WagleError(f"{folder} holds no {', '.join(READERS)} files")
    if split is None:
        raise WagleError(f"{folder} is a folder: name a split (it has {', '.join(names)})")
    rows = _rows_of_file(choose(names, split, f"split of {one_line(folder)}"))
    more = names.get(f"{split}_perturbed")
    if more is None:
        return rows
    added = {_said(row): row for _, row in _rows_of_file(more)}
    return [(where, {**row, **added.get(_said(row), {})}) for where, row in rows]


def _said(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row asks and says, under whichever names."""
    named = {FIELD[key]: value for key, value in row.items() if key in FIELD}
    return tuple(str(named.get(field)) for field in ("prompt", "answer", "text"))


def _rows(
    source: Source, split: str | None, name: str
) -> list[tuple[str, Mapping[str, Any] | Record]]:
    """The rows of any source, each with its location in a file."""
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
            raise WagleError(f"{source} is not a demo set; write demo:{name}@N with an integer N")
        return [("", row) for row in demo_records(name, int(unit or 0))]
    path = Path(source)
    if os.path.isdir(path):
        return _rows_of_folder(path, split)
    if not os.path.exists(path):
        text = str(source)
        if is_path(text) or text in installed("data"):
            return _rows_of_plugin(text, split)
        raise WagleError(f"data file {one_line(path)} does not exist")
    return _rows_of_file(path)


def _rows_of_plugin(name: str, split: str | None) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The rows that a plug-in gives: a function without arguments, or with ``split``."""
    make = find({}, name, "data")
    given = {} if split is None else {"split": split}
    rows = list(make(**given))
    if not all(isinstance(row, Mapping | Record) for row in rows):
        raise WagleError(f"the data {name} must give one dictionary per record")
    return [(name, row) for row in rows]


def _slice(count: int, rows: str) -> slice:
    found = re.fullmatch(r"(\d*):(\d*)", rows)
    if not found:
        raise WagleError(f"rows {rows!r} is not a range; write FIRST:LAST, such as 0:360 or 20:")
    first, last = (int(v) if v else None for v in found.groups())
    if (first or 0) >= (last if last is not None else count) or (last or 0) > count:
        raise WagleError(f"rows {rows} is empty or out of range: there are {count} records")
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
            ``split``; ``demo:forget`` and the like; a ``datasets.Dataset``; a list of dicts or of
            records.
        name: what messages call the set.
        split: the file in a folder, without its extension.
        rows: a range of rows, ``FIRST:LAST``, before ``take``.
        take: ``all``, a count, or a percentage such as ``"10%"``: a subset drawn by (seed, id);
            smaller subsets are contained in larger ones. File order is kept.
        seed: the seed for the draws of ``take`` and of refusals.

    Returns:
        The records, each with its id, place and refusal.
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
        try:
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            record.refusal.encode()
        except UnicodeEncodeError:
            said = "holds half of a surrogate pair, which is not a character"
            raise WagleError(f"{record.place or 'a record'} {said}") from None
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
