"""The ledger: what a model was asked to forget, when, and with what result.

A run that starts ``after`` another continues its ledger, so the ledger of the last run tells the
whole history. It identifies sets of records only by count and keyed digest: a reader learns neither
a record nor a hash from which a short one could be guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from wagle.run.integrity.seals import check_seals
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import fitting, one_line, read_json

SCHEMA = "wagle-ledger/1"
PURGE = "wagle-purge/1"  # receipts of purges stand after the requests
FILE = "ledger.json"


@dataclass(frozen=True)
class Request:
    """One entry: a finished run, and what it was asked.

    Attributes:
        name: of the run.
        when: the time it was finished, UTC, ISO 8601.
        wagle: the version that ran it.
        after: the run folder that it started from, as written in the recipe; None: from a model.
        objective: its name and settings, as trained.
        training: the recipe's section ``unlearning``.
        mask: ``digest``, ``ratio`` and ``count``; None where there was none.
        forget: ``n`` records, and the ``digest`` of their ids with the salt of that run.
        earlier: what was done with the records that earlier requests forgot (``mode``), and how
            many they are (``n``, 0 if they were not read); None without ``after``.
        base: fingerprint of the model before.
        result: fingerprint of the model after.
        patch: its ``file`` and the ``result`` that it promises; None if none was made.
        verdict: in words.
    """

    name: str
    when: str
    wagle: str
    after: str | None
    objective: dict[str, Any]
    training: dict[str, Any]
    mask: dict[str, Any] | None
    forget: dict[str, Any]
    earlier: dict[str, Any] | None
    base: str
    result: str
    patch: dict[str, str] | None
    verdict: str


class _Part(BaseModel):
    """What reading a ledger relies on."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Objective(_Part):
    name: str


class _Mask(_Part):
    digest: str
    ratio: float
    count: int


class _Records(_Part):
    n: int
    digest: str


class _Earlier(_Part):
    mode: str
    n: int


class _Request(_Part):
    name: str
    when: str
    wagle: str
    after: str | None
    objective: _Objective
    training: dict[str, Any]
    mask: _Mask | None
    forget: _Records
    earlier: _Earlier | None
    base: str
    result: str
    patch: dict[str, str] | None
    verdict: str


class _Deleted(_Part):
    path: str


class _Receipt(_Part):
    when: str
    deleted: list[_Deleted]


def write_ledger(folder: str | Path, requests: Sequence[Request]) -> None:
    """Write the ledger of a run atomically: the requests before it, oldest first, and its own.

    Raises:
        WagleError: a request did not start from what the one before left.
    """
    _refuse_broken(folder, requests)
    write_json(Path(folder) / FILE, ledger_json(requests))


def ledger_json(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """The content of a ledger file; every entry records the version of its format."""
    return [{"schema": SCHEMA, **asdict(request)} for request in requests]


def read_ledger(folder: str | Path, *, broken: bool = False) -> list[Request]:
    """The requests of a finished run and of those before it, oldest first.

    Args:
        folder: the run folder.
        broken: also accept a ledger whose requests do not follow from one another, to show it.

    Raises:
        WagleError: the run is not finished, one of its files was edited, or this wagle cannot read
            its ledger.
    """
    path = Path(folder) / FILE
    requests = [_read(entry, path) for entry in _entries(folder) if not _is_receipt(entry)]
    if not broken:
        _refuse_broken(folder, requests)
    return requests


def _entries(folder: str | Path, *, checked: bool = True) -> list[Any]:
    path = Path(folder) / FILE
    if not path.is_file():
        raise WagleError(
            f"{folder} is not a finished run: it has no {FILE}; finish it with wagle run {folder}"
        )
    if checked:
        check_seals(folder)
    found = read_json(path)
    if not isinstance(found, list) or all(map(_is_receipt, found)):
        raise WagleError(f"{path} is not a ledger: it was altered; restore what the run wrote")
    for entry in filter(_is_receipt, found):
        fitting(_Receipt, entry, f"a receipt in {one_line(path)}")
    return found


def _is_receipt(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("schema") == PURGE


def read_receipts(folder: str | Path) -> list[dict[str, Any]]:
    """The receipts of the run's purges, oldest first: what was deleted, and when."""
    return [entry for entry in _entries(folder) if _is_receipt(entry)]


def add_receipt(folder: str | Path, receipt: dict[str, Any]) -> None:
    """Enter the receipt of a purge in the ledger of its run, whatever became of other files."""
    write_json(Path(folder) / FILE, [*_entries(folder, checked=False), receipt])


def _read(entry: Any, path: Path) -> Request:
    kind = entry.get("schema") if isinstance(entry, dict) else None
    if kind != SCHEMA:
        raise WagleError(
            f"{path} has an entry of format {one_line(str(kind))}, this wagle reads {SCHEMA}"
        )
    names = {field.name for field in fields(Request)}
    if set(entry) != names | {"schema"}:
        wrong = sorted(set(entry) ^ (names | {"schema"}))[0]
        raise WagleError(
            f"{path} was altered: the field {one_line(wrong)} of an entry is missing or unknown; restore it"
        )
    fitting(_Request, entry, f"an entry of {one_line(path)}")
    return Request(**{name: entry[name] for name in names})


def find_break(requests: Sequence[Request]) -> int | None:
    """The first request that did not start from the previous one's result; None if all did."""
    for number in range(1, len(requests)):
        if requests[number].base != requests[number - 1].result:
            return number
    return None


def _refuse_broken(folder: str | Path, requests: Sequence[Request]) -> None:
    number = find_break(requests)
    if number is not None:
        before, own = requests[number - 1], requests[number]
        raise WagleError(
            f"the ledger of {folder} is broken: {one_line(before.name)} ended with "
            f"{one_line(before.result[:6])}, but {one_line(own.name)} started from "
            f"{one_line(own.base[:6])}; run {one_line(own.name)} again in a new folder"
        )


def ledger_table(requests: Sequence[Request], receipts: Sequence[dict[str, Any]] = ()) -> str:
    """A line per request, oldest first, and whether each started from the previous one's result.

    Args:
        requests: of the ledger.
        receipts: of purges of this run, a line each.
    """
    from wagle.report.text.tables import aligned

    heads = ["", "when", "run", "records", "objective", "weights", "base", "result", "verdict"]
    rows = [
        [
            str(number),
            request.when,
            request.name,
            f"{request.forget['n']:,}",
            str(request.objective["name"]),
            "all" if request.mask is None else f"{request.mask['ratio']:g}",
            request.base[:6],
            request.result[:6],
            request.verdict,
        ]
        for number, request in enumerate(requests, 1)
    ]
    number = find_break(requests)
    said = "holds: each request started from the previous one's result"
    if number is not None:
        said = f"BROKEN: request {number + 1} did not start from the result of request {number}"
    purged = [
        f"purged {one['when']}: {', '.join(d['path'] for d in one['deleted']) or 'texts'}"
        for one in receipts
    ]
    return "\n".join([*aligned([heads, *rows]), "", f"chain  {said}", *purged])
