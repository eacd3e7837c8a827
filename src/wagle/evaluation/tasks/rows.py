"""The rows of local files, for benchmarks whose data the user brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wagle.data.reading import LARGEST, READERS
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json


def find_file(data: str | Path, name: str, what: str, shape: str) -> Path:
    """The file ``name`` in a local folder, with any extension that can be read.

    Args:
        data: the folder.
        name: the file's name, without its extension.
        what: who needs it, for the message.
        shape: what a row looks like, for the message.

    Raises:
        WagleError: there is no such folder or file.
    """
    for ending in READERS:
        path = Path(data) / f"{name}{ending}"
        if path.is_file():
            return path
    raise WagleError(
        f"{what} looks for {name}.jsonl (or {', '.join(e for e in READERS if e != '.jsonl')}) in "
        f"{data}, which is not there; give a local folder with it as data, each line {shape}"
    )


def read_rows(path: Path, name: str) -> dict[str, Mapping[str, Any]]:
    """The rows of a JSON, JSON-lines or CSV file by place, such as ``one_shot[3]``.

    A ``.json`` file may also hold a single object over many lines: one row.

    Raises:
        WagleError: the file is malformed or holds no rows.
    """
    rows = _one_object(path) or [row for _, row in READERS[path.suffix](path)]
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise WagleError(f"{path} must hold one JSON object per record, and at least one")
    return {f"{name}[{i}]": row for i, row in enumerate(rows)}


def _one_object(path: Path) -> list[Any] | None:
    if path.suffix != ".json":
        return None
    try:
        found = read_json(path, finite=False, most=LARGEST)
    except WagleError:  # one object a line; what is wrong is said where these are read
        return None
    return [found] if isinstance(found, Mapping) else None


def words_of(row: Mapping[str, Any], field: str, place: str) -> str:
    """The text of a row's field, which must hold some.

    Raises:
        WagleError: the field is missing, empty or not text.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise WagleError(f"{place} has no text in its field {field}; fill it in")
    return value
