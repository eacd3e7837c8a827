"""The data set MUSE: news articles and books to forget, with questions, passages and texts.

It is read from a local copy of the hub's data set or of its repository's folder ``data``, or from
the hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wagle.data.hub import HubSet, open_source
from wagle.data.reading import READERS
from wagle.system.errors import WagleError, choose

Corpus = Literal["news", "books"]
HUB: dict[str, str] = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
FIELDS: dict[str, tuple[str, ...]] = {  # of the rows, by the data set's configurations
    "raw": ("text",),
    "train": ("text",),
    "verbmem": ("prompt", "gt"),
    "knowmem": ("question", "answer"),
    "privleak": ("text",),
    "scal": ("text",),
    "sust": ("text",),
}


def open_muse(data: str | Path, corpus: Corpus, revision: str | None = None) -> Path | HubSet:
    """A folder with MUSE's files, or the corpus's data set on the hub.

    Raises:
        WagleError: it is neither; a revision was given for a folder.
    """
    source = open_source(data, HUB[corpus], revision)
    if isinstance(source, HubSet) and source.name != HUB[corpus]:
        raise WagleError(
            f"{data} is not a folder; data: give a local copy of {HUB[corpus]}, or that name"
        )
    return source


def muse_rows(
    data: str | Path | HubSet, config: str, split: str, *, corpus: Corpus = "news"
) -> dict[str, dict[str, str]]:
    """The rows of a split, by place, such as ``news.knowmem.forget_qa[3]``.

    Args:
        data: a folder, a name on the hub, or the result of ``open_muse``.
        config: a key of FIELDS.
        split: ``forget``, ``retain_qa_icl``, ``forget_3``, ...; the older ``retain2``, as in
            ``retain2_qa``, is found too.
        corpus: ``news`` or ``books``.

    Raises:
        WagleError: no such file; a field that is missing, empty or not text.
    """
    fields = choose(FIELDS, config, "part of MUSE")
    names = [split]
    if config in ("knowmem", "privleak") and split.startswith("retain"):
        names.append("retain2" + split.removeprefix("retain"))
    source = data if isinstance(data, HubSet) else open_muse(data, corpus)
    if isinstance(source, HubSet):
        found, home = list(source.read(config, names)), source.name
    else:
        found, home = _local(source, corpus, config, names), str(source)
    rows = {}
    for number, row in enumerate(found):
        place = f"{corpus}.{config}.{split}[{number}]"
        whole = {"text": row} if isinstance(row, str) else row
        for field in fields:
            value = whole.get(field) if isinstance(whole, Mapping) else None
            if not isinstance(value, str) or not value.strip():
                raise WagleError(f"{place} has no text in its field {field}; fill it in")
        rows[place] = {field: whole[field] for field in fields}
    if not rows:
        raise WagleError(f"{config}/{split} of {home} holds no rows; it needs at least one")
    return rows


def _local(folder: Path, corpus: str, config: str, names: Sequence[str]) -> list[Any]:
    """The rows of the first file that fits, in this folder or in the corpus's folder inside it."""
    homes = [folder / corpus, folder / HUB[corpus].split("/")[1], folder]
    for home in homes:
        for name in names:
            for ending in (".jsonl", ".json"):
                path = home / config / f"{name}{ending}"
                if path.is_file():
                    return [row for _, row in READERS[ending](path)]
            shards = sorted((home / config).glob(f"{name}-*-of-*.parquet"))
            single = home / config / f"{name}.parquet"
            if shards or single.is_file():
                from pyarrow.parquet import read_table

                return [row for path in shards or [single] for row in read_table(path).to_pylist()]
    wanted = " or ".join(f"{config}/{name}" for name in names)
    raise WagleError(
        f"{folder} holds no {wanted} (.jsonl, .json or .parquet), nor do {corpus}/ and "
        f"{HUB[corpus].split('/')[1]}/ in it; data: give a local copy of {HUB[corpus]}"
    )
