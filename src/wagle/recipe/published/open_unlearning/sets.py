"""OpenUnlearning's data sets, as sets of records of a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from wagle.recipe.published.imported import Notes, Places
from wagle.system.errors import WagleError

_HANDLERS = ("QADataset", "QAwithIdkDataset", "QAwithAlternateDataset", "PretrainingDataset")
_RENAMED = {"question_key": "question", "answer_key": "answer"}


class Set(NamedTuple):
    """A set of records.

    Attributes:
        section: the recipe's section.
        records: how many it has; None: that is not known here.
        text: whether its records are texts, not questions.
        max_length: the most tokens of a record.
        alternatives: whether its records have other answers to prefer.
    """

    section: dict[str, Any]
    records: int | None
    text: bool
    max_length: int
    alternatives: bool


def read_set(role: str, given: Any, places: Places, notes: Notes) -> Set:
    """The records of ``data.forget`` or ``data.retain``.

    Args:
        role: ``forget`` or ``retain``.
        given: the data sets by name; of several, the records are joined.
        places: where records are.
        notes: gets what is needed and what has no counterpart.

    Raises:
        WagleError: there are none, or a set that nothing here reads.
    """
    if not isinstance(given, Mapping) or not given:
        raise WagleError(f"data.{role} names no data set")
    found = [_read_one(f"data.{role}.{name}", one, places, notes) for name, one in given.items()]
    if len(found) == 1:
        return found[0]
    if any("split" in one.section for one in found):
        raise WagleError(
            f"data.{role} joins several sets of a folder; here only files can be joined: give one"
        )
    counts = [one.records for one in found]
    return Set(
        {"source": [one.section["source"] for one in found]},
        sum(n for n in counts if n) if None not in counts else None,
        all(one.text for one in found),
        max(one.max_length for one in found),
        any(one.alternatives for one in found),
    )


def _read_one(key: str, given: Any, places: Places, notes: Notes) -> Set:
    handler = given.get("handler") if isinstance(given, Mapping) else None
    if handler not in _HANDLERS:
        raise WagleError(
            f"{key} has the handler {handler}; one of {', '.join(_HANDLERS)} can be read here"
            + (
                ""
                if handler
                else " (an experiment's values for a set that the command line replaces?)"
            )
        )
    args = given["args"]
    _note_fields(key, args, notes)
    section, records = _source(key, args.get("hf_args", {}), places, notes)
    return Set(
        section,
        records,
        handler == "PretrainingDataset",
        int(args.get("max_length", 512)),
        handler == "QAwithAlternateDataset",
    )


def _note_fields(key: str, args: Mapping[str, Any], notes: Notes) -> None:
    for name, usual in _RENAMED.items():
        if args.get(name, usual) != usual:
            notes.remarks.append(
                f"{key}.args.{name} is {args[name]}: rename that field of the records to {usual}"
            )
    if args.get("text_key", "text") != "text":
        notes.remarks.append(f"{key}.args.text_key: rename that field of the records to text")
    if "idk_path" in args:
        notes.remarks.append(
            f"{key}.args.idk_path: refusals are wagle's own, unless a record has one as refusal"
        )
    if "alternate_key" in args:
        notes.remarks.append(f"{key}.args.alternate_key: rename that field to alternatives")
    if "few_shot_dataset_hf_args" in args:
        notes.remarks.append(f"{key}.args.few_shot_dataset_hf_args: put few_shot into the records")
    if "prefix_key" in args:
        notes.remarks.append(f"{key}.args.prefix_key: rename that field of the records to prefix")


def _source(
    key: str, hub: Mapping[str, Any], places: Places, notes: Notes
) -> tuple[dict[str, Any], int | None]:
    """Where the records are, and how many there are if that is known."""
    path, name = str(hub.get("path", "")), str(hub.get("name", ""))
    split, files = str(hub.get("split", "train")), hub.get("data_files")
    if "[" in split:
        raise WagleError(f"{key}.args.hf_args.split {split} has no counterpart; give forget.rows")
    if files is not None:
        listed = files if isinstance(files, list) else [files]
        paths = [_file(str(one).rpartition("/")[2], str(one), places, notes) for one in listed]
        return {"source": paths if len(paths) > 1 else paths[0]}, None
    if path == "locuslab/TOFU":
        found = re.fullmatch(r"(?:forget|retain|holdout)(\d\d)(?:_perturbed)?", name)
        folder = notes.need(
            places.of_data("TOFU"),
            f"{name} of locuslab/TOFU",
            "put these splits there as NAME.json, and the _perturbed ones that evaluation reads",
        )
        count = 40 * int(found[1]) if found else 4000 if name == "full" else None
        return {"source": folder, "split": name}, count
    muse = re.fullmatch(r"muse-bench/MUSE-(\w+)", path)
    if muse:
        file = f"{muse[1].lower()}/{name or 'raw'}/{split}.jsonl"
        return {"source": _file(file, f"{split} of {name or 'raw'} of {path}", places, notes)}, None
    if not path:
        raise WagleError(f"{key}.args.hf_args names no path")
    parts = [path.rpartition("/")[2], *([name] if name else []), split]
    return {
        "source": _file("/".join(parts) + ".jsonl", f"{path} {name}".strip(), places, notes)
    }, None


def _file(name: str, fetched: str, places: Places, notes: Notes) -> str:
    return notes.need(places.of_data(name), fetched, "put it there as JSON lines")
