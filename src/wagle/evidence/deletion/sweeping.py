"""Looking for the text of records in files: in every form in which wagle could have written it.

A text is looked for piece by piece (sentences, lines), as UTF-8, with JSON's escapes, with HTML's
and in base64. Of weight files only the header is read: weights are numbers.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from markupsafe import escape

from wagle.data.records import Record

SHORTEST = 12  # characters of a piece: shorter ones occur by chance
LONGEST = 80
_PREFIX = 8  # bytes by which a piece is found first; base64 at its worst leaves no more
_WEIGHTS = ".safetensors"
_HEADER = 100 * 2**20  # the longest header that safetensors allows


def texts_of(records: Iterable[Record]) -> set[str]:
    """Everything that records say, as strings."""
    return {text for record in records for text in _strings(record.content()) if text}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in _strings(one))
    elif isinstance(value, list | tuple):
        yield from (text for one in value for text in _strings(one))
    elif hasattr(value, "content"):  # a turn of a chat
        yield str(value.content)


def pieces_of(texts: Iterable[str]) -> set[str]:
    """The sentences and lines of texts that are long enough to be told from others."""
    found = set()
    for text in texts:
        for piece in re.split(r"[\n\r\t]|(?<=[.!?]) ", text):
            cut = piece.strip()[:LONGEST]
            if len(cut) >= SHORTEST:
                found.add(cut)
    return found


def forms_of(piece: str) -> set[bytes]:
    """The bytes that a piece of text may have been written as."""
    plain = {
        piece,
        json.dumps(piece)[1:-1],
        json.dumps(piece, ensure_ascii=False)[1:-1],
        html.escape(piece),
        str(escape(piece)),
        html.escape(piece).encode("ascii", "xmlcharrefreplace").decode(),
    }
    made = {text.encode() for text in plain} | {piece.encode("utf-16-le")}
    raw = piece.encode()
    for lead in range(3):  # base64 of a longer text: where the piece starts, in threes
        body = raw[(3 - lead) % 3 :]
        made.add(base64.b64encode(body[: len(body) // 3 * 3]))
    return {form for form in made if len(form) >= _PREFIX}


class Sweep:
    """Finds the texts of records in bytes.

    Args:
        texts: what to look for.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._forms: dict[bytes, list[bytes]] = {}
        for piece in pieces_of(texts):
            for form in forms_of(piece):
                self._forms.setdefault(form[:_PREFIX], []).append(form)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def finds(self, data: bytes) -> bool:
        """Whether any of the texts occurs in ``data``."""
        forms = self._forms
        for start in range(len(data) - _PREFIX + 1):
            here = forms.get(data[start : start + _PREFIX])
            if here is not None and any(data.startswith(form, start) for form in here):
                return True
        return False

    def files(self, folder: Path, leave: Sequence[str] = ()) -> list[str]:
        """The files in a folder that hold any of the texts, by relative path.

        Args:
            folder: where to look, at any depth.
            leave: relative paths not to look at, with all that lies in them.
        """
        found = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            left = any(name == one or name.startswith(f"{one}/") for one in leave)
            if path.is_file() and not path.is_symlink() and not left and self.finds(_read(path)):
                found.append(name)
        return found


def _read(path: Path) -> bytes:
    """A file's bytes; of weights only the header."""
    with path.open("rb") as file:
        if path.suffix != _WEIGHTS:
            return file.read()
        size = int.from_bytes(file.read(8), "little")
        return file.read(min(size, _HEADER))
