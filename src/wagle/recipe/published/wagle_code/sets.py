"""The data sets of the published WAGLE code and of SOUL, by their names there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from wagle.recipe.published.imported import Notes, Places
from wagle.system.errors import WagleError

_WMDP = {
    "Bio": ("bio_remove_dataset.jsonl", "bio-retain-corpus.jsonl"),
    "Cyber": ("cyber-forget-corpus.jsonl", "cyber-retain-corpus.jsonl"),
}
_FETCHED = {
    "bio_remove_dataset.jsonl": "the file that its authors send on request",
    "C4.jsonl": "en/c4-train.00001-of-01024.json.gz of allenai/c4",
    "SafePku.jsonl": "PKU-Alignment/PKU-SafeRLHF at revision ff7ba91063016c78a225b0f74e1c0860bb18230f",
    "hp_qa.jsonl": "files/data/hp/hp_qa.jsonl, which is not published",
    "wikitext.jsonl": "wikitext-2-raw-v1 of wikitext",
}
_REMEDY = {
    "SafePku.jsonl": "one row {prompt, response} for every response that is marked as not safe",
    "hp_qa.jsonl": "rows {prompt, response} of your own passages",
}


class Set(NamedTuple):
    """A data set.

    Attributes:
        section: the recipe's section, without a subset.
        records: how many it has; None: it is not known here.
        text: whether its records are texts, not questions.
        max_length: the most tokens of a record that the published code reads.
    """

    section: dict[str, Any]
    records: int | None = None
    text: bool = False
    max_length: int = 512


def find_set(name: str, role: str, places: Places, notes: Notes) -> Set:
    """A data set by its name there.

    Args:
        name: its name.
        role: ``forget`` or ``retain``.
        places: where records are.
        notes: gets what is needed.

    Raises:
        WagleError: there is none of that name, or it cannot have that role.
    """
    if name.startswith("Tofu_"):
        return _tofu(name.removeprefix("Tofu_"), places, notes)
    if name.startswith("WMDP"):
        return _wmdp(name, role, places, notes)
    if name in ("SafePku", "HP") and role == "retain":
        raise WagleError(
            f"dataset.retain_dataset_name {name} would keep what should go: its records are those "
            "to forget; name another set, such as C4"
        )
    if name == "wikitext":
        notes.remarks.append("dataset wikitext: the published code stops at it")
    file = {"HP": "hp_qa.jsonl"}.get(name, f"{name}.jsonl")
    if file not in _FETCHED:
        raise WagleError(
            f"dataset.{role}_dataset_name {name} is no data set of the published code (known: "
            "Tofu_SPLIT, WMDPBio, WMDPCyber, WMDPALL, SafePku, HP, C4, wikitext)"
            + ("; it is its default and stops it" if name == "TruthfulQA" else "")
        )
    text = name in ("C4", "wikitext")
    path = _file(file, places, notes)
    return Set({"source": path}, None, text, 1024 if name == "HP" else 512)


def _tofu(split: str, places: Places, notes: Notes) -> Set:
    found = re.fullmatch(r"(forget|retain)(\d\d)(_perturbed)?", split)
    share = int(found[2]) if found else 100 if split == "full" else None
    path = notes.need(
        places.of_data("TOFU"),
        f"{split} of locuslab/TOFU",
        "put these splits there as NAME.json, and the _perturbed ones that evaluation reads",
    )
    return Set({"source": path, "split": split}, None if share is None else 40 * share)


def _wmdp(name: str, role: str, places: Places, notes: Notes) -> Set:
    which = {"WMDPBio": ["Bio"], "WMDPCyber": ["Cyber"], "WMDPALL": ["Cyber", "Bio"]}
    if name not in which:
        raise WagleError(f"dataset.{role}_dataset_name {name} is none (known: {', '.join(which)})")
    files = [_WMDP[one][role == "retain"] for one in which[name]]
    paths = [_file(file, places, notes) for file in files]
    return Set({"source": paths if len(paths) > 1 else paths[0]}, None, True, 1024)


def _file(name: str, places: Places, notes: Notes) -> str:
    fetched = _FETCHED.get(name, f"{name.removesuffix('.jsonl')} of cais/wmdp-corpora")
    remedy = _REMEDY.get(name, "one row {text} for every document")
    return notes.need(places.of_data(name), fetched, f"put it there as JSON lines, {remedy}")


def subset_of(ratio: float, seed: int, records: int | None) -> tuple[dict[str, Any], int | None]:
    """Which records to forget, as settings, and how many these are.

    Args:
        ratio: above 1 a count, else a share.
        seed: of the draw.
        records: how many there are, if known.

    Raises:
        WagleError: the share is none of whole percents, or nothing is left.
    """
    if ratio <= 0:
        raise WagleError(
            f"dataset.forget_ratio is {ratio:g}, and the published code stops at it; give a count, or a share up to 1"
        )
    if ratio > 1:
        count = int(ratio)
        if records is not None and count > records:
            raise WagleError(f"dataset.forget_ratio asks for {count} of {records} records")
        return {"take": count, "seed": seed}, count
    if ratio == 1:
        return {}, records
    percent = round(100 * ratio, 9)
    if percent != int(percent):
        raise WagleError(
            f"dataset.forget_ratio is {ratio:g}; here a share is a whole percentage, so give a count"
        )
    share = {"take": f"{int(percent)}%", "seed": seed}
    return share, None if records is None else int(records * ratio)


def name_of(values: Mapping[str, Any], role: str) -> str:
    """The name of a data set in a config."""
    name: str = values[f"dataset.{role}_dataset_name"]
    return name
