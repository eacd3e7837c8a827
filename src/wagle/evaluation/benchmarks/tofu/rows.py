"""The records of TOFU: files in a folder, or configurations on the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from wagle.data.hub import HubSet
from wagle.data.reading import READERS, read_records
from wagle.data.records import Record
from wagle.evaluation.benchmarks.tofu.requests import WORLD
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)

HUB = "locuslab/TOFU"
Limit: TypeAlias = int | Literal["all"] | None  # records of a set


def read_sets(
    source: Path | HubSet, split: str, limits: Mapping[str, Limit]
) -> tuple[dict[str, list[Record]], str | None]:
    """The records by set, up to a limit, and why the hub has no holdout set, or None.

    Args:
        source: a folder, or the data set on the hub.
        split: the records to forget; there is a ``holdout`` only if one matches this split.
        limits: the most records, by set.

    Raises:
        WagleError: files or configurations are missing, or a limit is below 1.
    """
    found, note = _read(source, split)
    return {name: _cut(records, limits.get(name)) for name, records in found.items()}, note


def _read(source: Path | HubSet, split: str) -> tuple[dict[str, list[Record]], str | None]:
    configs = {
        "forget": f"{split}_perturbed",
        "retain": "retain_perturbed",
        **{name: f"{name}_perturbed" for name in WORLD},
    }
    holdout = _holdout(split)
    if isinstance(source, HubSet):
        read = {n: source.read(config, ["train"]) for n, config in configs.items()}
        note = None
        if holdout is not None:
            found, why = source.find(holdout, ["train"])
            if found is None:
                note = f"no membership attacks: {holdout} of {source.name} cannot be read"
                logger.warning("%s: %s", note, why)
            else:
                read["holdout"] = found
        return {n: read_records(rows, name=n) for n, rows in read.items()}, note
    there = {path.stem for path in source.iterdir() if path.suffix in READERS}
    missing = [config for config in configs.values() if config not in there]
    if missing:
        raise WagleError(
            f"{source} lacks {', '.join(missing)} ({', '.join(READERS)}); data: give a folder with "
            f"the files of TOFU (on the hub: {HUB})"
        )
    if holdout in there:
        configs["holdout"] = holdout
    return {n: read_records(source, name=n, split=config) for n, config in configs.items()}, None


def _holdout(split: str) -> str | None:
    """The split of records that were never trained on, as large as a forget split."""
    return split.replace("forget", "holdout") if "forget" in split else None


def check_holdout(found: Mapping[str, Sequence[Record]], data: str | Path, split: str) -> None:
    """Refuse settings of membership attacks if there are no holdout records."""
    if not found.get("holdout"):
        raise WagleError(
            f"attacks and k belong to membership attacks, but {data} has no "
            f"{_holdout(split) or 'holdout split'} for {split}; leave them out, or add it"
        )


def _cut(records: list[Record], limit: Limit) -> list[Record]:
    if limit is None or limit == "all":
        return records
    if limit < 1:
        raise WagleError(f"rows is {limit}; give a number of records above 0")
    return records[:limit]
