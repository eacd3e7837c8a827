"""What makes two results comparable, and how they differ: the records asked about, and settings.

A result file states both without revealing the records: for every set their number and a digest.
The digest of private records is keyed, so that nobody who reads the file can test a guess: with the
salt of the private folder that keeps the answers or, without one, with a salt that only this
process has. Digests under different salts say nothing, so they are not compared.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Figure, Measured, Task, joined
from wagle.metrics.statistics import paired_difference
from wagle.system.errors import WagleError
from wagle.system.files.reading import one_line
from wagle.system.files.secrets import keyed_digest, private_folder, salt

logger = logging.getLogger(__name__)
_PUBLISHED = b"published"  # the key for data that is not secret
_AGAIN = "evaluate both with the same data and settings"


def asked_text(record: Record, *more: Any) -> str:
    """Everything in a record that its question or answers are made from, as one string; private.

    It does not depend on the model, tokenizer or template.

    Args:
        record: a record of any kind.
        more: what else determines how it is asked, as JSON values.
    """
    made = record.content()
    for unasked in ("alternatives", "decomposed", "translations"):
        made.pop(unasked, None)
    return json.dumps([made, *more], sort_keys=True, ensure_ascii=False)


def template_settings(encoder: Encoder) -> dict[str, str]:
    """How questions become text, as settings; None would mean that it does not matter."""
    prompt = encoder.system_prompt
    return {
        "template": encoder.template,
        "system_prompt": "the template's own" if prompt is None else prompt,
    }


def data_entry(task: Task, private: Path | None = None) -> dict[str, Any]:
    """What a result file says about the data: ``sets``, ``settings`` and what the benchmark adds.

    Args:
        task: the task that has the records.
        private: the folder whose salt keys the digests of private records; None: digests are
            comparable only within this process.
    """
    key = _PUBLISHED if task.published else _key(private)
    sets = {
        name: {"n": len(found), "digest": keyed_digest(key, list(found.values()))}
        for name, found in task.records.items()
    }
    return {
        **task.data,
        "sets": sets,
        "salt": None if task.published else keyed_digest(key, [])[:8],  # tells salts apart
        "settings": dict(task.settings),
    }


def _key(private: Path | None) -> bytes:
    return _own_key() if private is None else salt(private_folder(private))


@cache
def _own_key() -> bytes:
    return secrets.token_bytes(32)


def check_comparable(
    benchmark: str,
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    called: str = "the reference",
) -> None:
    """Refuse a result from another benchmark, other records or other settings.

    What only one side states is not compared: results of other tools and older files state nothing.

    Args:
        benchmark: the benchmark of this evaluation.
        own: its ``data_entry``.
        other: the details of the result to compare with.
        called: what messages call that result.

    Raises:
        WagleError: something differs, which is named.
    """
    data = other.get("data") or {}
    _check_version(benchmark, own["settings"], other, data.get("settings", {}), called)
    for key in (key for key in own["settings"] if key in data.get("settings", {})):
        mine, theirs = own["settings"][key], data["settings"][key]
        if None not in (mine, theirs) and mine != theirs:
            raise WagleError(
                f"{called} was asked with {key} {_short(theirs)}, this model with {_short(mine)}; "
                f"{_AGAIN}"
            )
    sets = data.get("sets")
    if not sets:
        return
    if other.get("benchmark") not in (None, benchmark):
        raise WagleError(
            f"{called} is a result of the benchmark {one_line(other['benchmark'])}, not of {benchmark}; "
            f"{_AGAIN}"
        )
    shared = [name for name in own["sets"] if name in sets]
    if not shared:
        raise WagleError(
            f"{called} has none of the sets {', '.join(own['sets'])}, but {one_line(', '.join(sets))}; "
            f"{_AGAIN}"
        )
    for name in shared:
        mine, theirs = own["sets"][name], sets[name]
        if mine["n"] != theirs["n"]:
            raise WagleError(
                f"{called} has other records: {theirs['n']} in the set {name}, where this "
                f"model is asked about {mine['n']}; {_AGAIN}"
            )
        if own["salt"] == data.get("salt") and mine["digest"] != theirs["digest"]:
            raise WagleError(
                f"{called} has other records: its {mine['n']} in the set {name} have other "
                f"texts or another order; {_AGAIN}"
            )


def _check_version(
    benchmark: str,
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    told: Mapping[str, Any],
    called: str,
) -> None:
    """Refuse figures of another version of the benchmark; warn of a file that does not say."""
    mine, theirs = own.get("version"), told.get("version")
    if other.get("benchmark") != benchmark or mine is None:
        return
    if theirs is None:
        logger.warning(
            "%s does not say which version of the figures of %s it holds, and their definitions "
            "change; evaluate it again to be sure",
            called,
            benchmark,
        )
    elif mine != theirs:
        raise WagleError(
            f"{called} holds figures of {benchmark} in version {theirs}, this wagle makes version "
            f"{mine}, which is defined otherwise; evaluate it again"
        )


def unlike(
    benchmark: str, own: Mapping[str, Any], precision: str, other: Mapping[str, Any]
) -> str | None:
    """Why figures that passed ``check_comparable`` may still be unlike quantities; None: they are not.

    Args:
        benchmark: the benchmark of this evaluation.
        own: its ``data_entry``.
        precision: the precision of its matrix products.
        other: the details of the result to compare with.
    """
    stated = (other.get("data") or {}).get("settings", {})
    missing = [key for key, value in own["settings"].items() if value is not None]
    missing = [key for key in missing if key not in stated and key != "version"]  # told before
    if missing:
        return (
            f"does not state {', '.join(missing)}: its figures are compared as if they were measured "
            f"like this model's with {benchmark}"
        )
    theirs = (other.get("options") or {}).get("precision", precision)
    if theirs != precision:
        return (
            f"was asked in {theirs}, this model in {precision}: figures differ by the rounding too"
        )
    return None


def _short(value: Any) -> str:
    """A setting as messages show it: only the beginning of a long text, such as a system prompt."""
    text = value if isinstance(value, str) else json.dumps(value)
    return one_line(text if len(text) <= 60 else f"{text[:60]}...")


def with_reference(own: Measured, other: Measured, task: Task) -> Measured:
    """A model's figures, plus those that need a reference, such as forget quality."""
    return own if task.against is None else joined(own, task.against(own, other))


def paired(own: Measured, other: Measured, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Paired differences to a reference, for every figure that both have on the same records."""
    found = {}
    for name, figures in own.figures.items():
        for metric, figure in figures.items():
            beside = other.figures.get(name, {}).get(metric)
            if beside is not None and _same_records(figure, beside):
                difference = paired_difference(figure.per_record, beside.per_record, seed=seed)
                found[f"{name}.{metric}"] = difference._asdict()
    return found


def _same_records(one: Figure, other: Figure) -> bool:
    return bool(one.per_record) and one.per_record.keys() == other.per_record.keys()
