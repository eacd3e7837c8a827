"""The logs of other tools, read as values by set, metric and record.

TOFU's ``eval_log_aggregated.json`` and OpenUnlearning's ``TOFU_EVAL.json`` and ``MUSE_EVAL.json``.
Anything unexpected in a log is an error that names the file, metric and row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from wagle.metrics.likelihood import (
    closer_to_1,
    know,
    log_truth_ratio,
    option_probability,
    probability,
    true_better,
)
from wagle.system.errors import WagleError

Rows: TypeAlias = dict[str, float]
Log: TypeAlias = Mapping[str, Any]
Found: TypeAlias = dict[str, dict[str, Rows]]  # by set and metric

TOFU_LOGS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
SHORT = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
WORLD = ("real_authors", "world_facts")
THEIR_ATTACKS = {"loss": "loss", "zlib": "zlib", "min_k": "min_k", "min_k++": "min_k_plus_plus"}
_MUSE_ATTACKS = {**THEIR_ATTACKS, "gradnorm": "gradnorm"}
_MUSE_ROUGE = {  # OpenUnlearning's name: set, metric, source of the rows
    "forget_verbmem_ROUGE": ("forget", "verbmem", "verbmem.forget"),
    "forget_knowmem_ROUGE": ("forget", "knowmem", "knowmem.forget_qa"),
    "retain_knowmem_ROUGE": ("retain", "knowmem", "knowmem.retain_qa"),
}
FLOORED = "extraction_strength_floor"  # OpenUnlearning's extraction strength: at least 1/n
WITH_END = "membership_eos"  # the setting: whether the attacks loss and zlib count the EOS
_MEMORY = {"extraction_strength": FLOORED, "exact_memorization": "exact_memorization"}


def is_muse(data: Log) -> bool:
    """Whether a log of OpenUnlearning is one of MUSE."""
    return any(name in data for name in _MUSE_ROUGE)


def tofu_rows(data: Log, path: str | Path) -> Found:
    """The rows of TOFU's log."""
    return {name: _tofu_set(data, name, path) for name in TOFU_LOGS if TOFU_LOGS[name] in data}


def _tofu_set(data: Log, name: str, path: str | Path) -> dict[str, Rows]:
    what = f"{path}, {TOFU_LOGS[name]}"
    log = data[TOFU_LOGS[name]]
    if not isinstance(log, Mapping):
        raise WagleError(f"{what} is {_kind(log)}, not columns by name")

    def column(key: str, read: Callable[[Any, str, str], Any]) -> dict[str, Any]:
        if key not in log:
            raise WagleError(f"{what} has no {key}")
        places = _by_place(log[key], name, f"{what}, {key}")
        return {place: read(value, place, f"{what}, {key}") for place, value in places.items()}

    right, told = column("avg_gt_loss", _loss), column("avg_paraphrased_loss", _loss)
    wrong = column("average_perturb_loss", _losses)
    if not right.keys() == told.keys() == wrong.keys():
        raise WagleError(f"{what}: its losses have {len(right)}, {len(told)} and {len(wrong)} rows")
    rows = {
        "probability": {
            p: option_probability(mean, wrong[p]) if name in WORLD else probability(mean)
            for p, mean in right.items()
        },
        "nll": right,
        **_from_ratios({p: log_truth_ratio(told[p], wrong[p]) for p in told}, name),
    }
    for metric, key in (("rouge_l", "rougeL_recall"), ("rouge_1", "rouge1_recall")):
        if key in log:
            rows[metric] = column(key, _finite)
    return rows


def _from_ratios(logs: Rows, name: str) -> dict[str, Rows]:
    transform = closer_to_1 if name == "forget" else true_better
    return {
        "log_truth_ratio": logs,
        "truth_ratio": {place: transform(value) for place, value in logs.items()},
        "know": {place: know(value) for place, value in logs.items()},
    }


# ---------------------------------------------------------------------------------------------
# OpenUnlearning


def open_unlearning_rows(data: Log, path: str | Path) -> Found:
    """The rows of OpenUnlearning's TOFU log."""
    made: Found = {}

    def take(metric: str, name: str, key: str, ours: str) -> None:
        _take(made, _entry(data, metric, f"{path}, {metric}"), (name, ours, name), key)

    for name, short in SHORT.items():
        take(f"{short}_Q_A_Prob", name, "prob", "probability")
        take(f"{short}_Q_A_Prob", name, "avg_loss", "nll")
        take(f"{short}_Q_A_Prob_normalised", name, "prob", "probability")
        take(f"{short}_Q_A_PARA_Prob", name, "prob", "paraphrased_answer")
        for key, ours in (
            ("rougeL_recall", "rouge_l"),
            ("rougeL_f1", "rouge_l_f1"),
            ("rouge1_recall", "rouge_1"),
        ):
            take(f"{short}_Q_A_ROUGE", name, key, ours)
        logs = _ratios(data, name, path)
        if logs:
            made.setdefault(name, {}).update(_from_ratios(logs, name))
    for metric, ours in _MEMORY.items():
        take(metric, "forget", "score", ours)
    _take_attacks(made, data, THEIR_ATTACKS, "", path)
    return made


def muse_log_rows(data: Log, corpus: str, path: str | Path) -> Found:
    """The rows of OpenUnlearning's MUSE log, which does not name its corpus."""
    made: Found = {}
    for metric, (name, ours, home) in _MUSE_ROUGE.items():
        entry = _entry(data, metric, f"{path}, {metric}")
        _take(made, entry, (name, ours, f"{corpus}.{home}"), "rougeL_f1")
    for metric in _MEMORY:
        entry = _entry(data, metric, f"{path}, {metric}")
        _take(made, entry, ("forget", f"verbmem_{metric}", f"{corpus}.verbmem.forget"), "score")
    _take_attacks(made, data, _MUSE_ATTACKS, f"{corpus}.privleak.", path)
    return made


def _take_attacks(
    made: Found, data: Log, attacks: Mapping[str, str], before: str, path: str | Path
) -> None:
    """Add the membership scores of both sets; their places begin with ``before``."""
    for ours, theirs in attacks.items():
        what = f"{path}, mia_{theirs}"
        both, _ = _entry(data, f"mia_{theirs}", what)
        for name in ("forget", "holdout"):
            entry = _entry(both, name, f"{what}, {name}")
            _take(made, entry, (name, f"mia_{ours}", f"{before}{name}"), "score")


def _entry(data: Log, key: str, what: str) -> tuple[Log, str]:
    """What a log holds under a name, and what messages call it; empty if there is nothing."""
    found = data.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise WagleError(f"{what} is {_kind(found)}, not a metric with its rows")
    return found or {}, what


def _rows(entry: tuple[Log, str], home: str, key: str) -> dict[str, Any]:
    """The values ``key`` of a metric by place; empty if it holds only aggregates."""
    found, what = entry
    rows = found.get("value_by_index")
    if rows is None or rows == {}:
        return {}
    places = _by_place(rows, home, what)
    lost = next((p for p, value in places.items() if not isinstance(value, Mapping)), None)
    if lost is not None:
        raise WagleError(f"{what}: {lost} is {_kind(places[lost])}; evaluate that model again")
    known = any(key in value for value in places.values())
    return {p: value.get(key) for p, value in places.items()} if known else {}


def _take(made: Found, entry: tuple[Log, str], into: tuple[str, str, str], key: str) -> None:
    """Add the values ``key`` of a metric to a set's, under our name and at its places."""
    name, ours, home = into
    read = _loss if key == "avg_loss" else _finite
    values = {p: read(v, p, f"{entry[1]}, {key}") for p, v in _rows(entry, home, key).items()}
    if values:
        made.setdefault(name, {})[ours] = values


def _ratios(data: Log, name: str, path: str | Path) -> Rows:
    """``log R`` of a set: from the losses if there are any, without OpenUnlearning's epsilon."""
    short = SHORT[name]

    def rows(metric: str, key: str) -> dict[str, Any]:
        return _rows(_entry(data, metric, f"{path}, {metric}"), name, key)

    one, other = f"{short}_Q_A_{'Prob' if name in WORLD else 'PARA_Prob'}", f"{short}_Q_A_PERT_Prob"
    right, wrong = rows(one, "avg_loss"), rows(other, "avg_loss")
    if wrong and right.keys() == wrong.keys():
        return {
            p: log_truth_ratio(
                _loss(right[p], p, f"{path}, {one}, avg_loss"),
                _losses(wrong[p], p, f"{path}, {other}, avg_loss"),
            )
            for p in right
        }
    metric = f"{short}_{'truth_ratio' if name == 'forget' else 'Truth_Ratio'}"
    made = {}
    for place, value in rows(metric, "score").items():
        ratio = _finite(value, place, f"{path}, {metric}")
        if ratio <= 0:
            raise WagleError(f"{path}, {metric}: {place} is {ratio}, which has no logarithm")
        made[place] = math.log(ratio)
    return made


# ---------------------------------------------------------------------------------------------
# Values


def _by_place(values: Any, home: str, what: str) -> dict[str, Any]:
    """Values by row index as values by place, in the order of the rows."""
    if not isinstance(values, Mapping):
        raise WagleError(f"{what} is {_kind(values)}, not values by row")
    if not values:
        raise WagleError(f"{what} holds no rows")
    wrong = next((index for index in values if not index.isdecimal()), None)
    if wrong is not None:
        raise WagleError(f"{what}: row {wrong!r} is not a number; rows are counted from 0")
    rows = sorted(((int(index), value) for index, value in values.items()), key=lambda row: row[0])
    if [index for index, _ in rows] != list(range(len(rows))):
        raise WagleError(f"{what} lacks records: it has {len(rows)}, the last is {rows[-1][0]}")
    return {f"{home}[{index}]": value for index, value in rows}


def _finite(value: Any, place: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WagleError(f"{what}: {place} is {_kind(value)}, not a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WagleError(f"{what}: {place} is {number}, not a finite number")
    return number


def _loss(value: Any, place: str, what: str) -> float:
    number = _finite(value, place, what)
    if number < 0:
        raise WagleError(f"{what}: {place} is {number}; a loss is 0 or more")
    return number


def _losses(value: Any, place: str, what: str) -> list[float]:
    """The losses of a row's wrong answers."""
    if not isinstance(value, list):
        raise WagleError(f"{what}: {place} is {_kind(value)}, not a list of losses")
    if not value:
        raise WagleError(f"{what}: {place} is an empty list; it needs the loss of a wrong answer")
    return [_loss(one, place, what) for one in value]


def _kind(value: Any) -> str:
    """What kind of value a JSON value is: it may hold text, which is not shown."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
