"""Result files of other tools: what they hold becomes figures, and figures get their names.

TOFU's and OpenUnlearning's logs of a retrained model serve as a reference, record by record. Names
of a tool go to the same figures of wagle; what a tool does not know is left out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from wagle.errors import WagleError, choose
from wagle.evaluation.figures import OVERALL, Figure, Measured, mean_figure
from wagle.evaluation.metrics.likelihood import (
    closer_to_1,
    know,
    log_truth_ratio,
    option_probability,
    probability,
    true_better,
)
from wagle.evaluation.result import SCHEMA, Evaluation
from wagle.files import read_json, write_json, write_text

Figures: TypeAlias = Mapping[str, Mapping[str, Figure]]
_Rows: TypeAlias = dict[str, float]

_TOFU_LOGS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
_SHORT = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
_WORLD = ("real_authors", "world_facts")
_ATTACKS = {"loss": "loss", "zlib": "zlib", "min_k": "min_k", "min_k++": "min_k_plus_plus"}
_ROWS_PER_PERCENT, _FIRST_ROWS = 40, 300  # of TOFU's 4 000 records; what its own code evaluates


def basis(split: str, ratio: str, asked: str, template: str | None = None) -> str:
    """What truth ratios were measured on, as their figure's note says it.

    Only those on one basis may be compared; a file of another tool does not tell its template.

    Args:
        split: ``forget10``.
        ratio: the mean over the wrong answers, ``geometric`` or ``arithmetic``.
        asked: the field of the question.
        template: its name, or None where it is not known.
    """
    text = f"{split}, {ratio} mean over the wrong answers, after {asked}"
    return text if template is None else f"{text}; template {template}"


def same_basis(one: str | None, other: str | None) -> bool:
    """Whether two notes of ``basis`` may be compared: equal in all that both of them tell."""
    parts = [(note or "").split("; template ") for note in (one, other)]
    return all(mine == theirs for mine, theirs in zip(*parts, strict=False))


# ---------------------------------------------------------------------------------------------
# Reading


def read_result(path: str | Path, *, split: str | None = None) -> Measured:
    """Read a result file of wagle, of TOFU or of OpenUnlearning.

    Args:
        path: a ``wagle-eval/1`` file, TOFU's ``eval_log_aggregated.json`` or OpenUnlearning's
            ``TOFU_EVAL.json``.
        split: the forget split that it must be of; None takes what the number of its records says.

    Raises:
        WagleError: a file of another kind or split, or without what it should hold; a number that
            is not finite, by its record.
    """
    data = read_json(path)
    if not isinstance(data, Mapping):
        raise WagleError(f"{path} holds no results: it is a list or a single value")
    if data.get("schema") == SCHEMA:
        return Evaluation.from_json(data).measured()
    if _TOFU_LOGS["forget"] in data:
        rows = {
            name: _tofu_rows(data, name, path) for name in _TOFU_LOGS if _TOFU_LOGS[name] in data
        }
    elif any(isinstance(entry, Mapping) and "agg_value" in entry for entry in data.values()):
        rows = _open_unlearning_rows(data, path)
    else:
        raise WagleError(
            f"{path} is no result file of wagle, TOFU (eval_log_aggregated.json) or OpenUnlearning "
            "(TOFU_EVAL.json; its summary holds no records)"
        )
    ratios = rows.get("forget", {}).get("log_truth_ratio")
    if not ratios:
        raise WagleError(f"{path} has no truth ratios of forget records; give the whole log")
    note = basis(_split(len(ratios), split, path), "geometric", "question")
    return Measured(
        {
            name: {
                metric: mean_figure(
                    values,
                    unit="as in the file",
                    note=note if (name, metric) == ("forget", "log_truth_ratio") else None,
                )
                for metric, values in found.items()
            }
            for name, found in rows.items()
        }
    )


def _split(count: int, wanted: str | None, path: str | Path) -> str:
    """The split that so many forget records are of; another one than wanted is an error."""
    percent = 10 if count == _FIRST_ROWS else count // _ROWS_PER_PERCENT
    found = f"forget{percent:02d}"
    known = count in (_FIRST_ROWS, percent * _ROWS_PER_PERCENT)
    if not known or wanted not in (None, found):
        what = f"those of {found}" if known else "no split of TOFU's (40 per percent)"
        raise WagleError(
            f"{path} holds {count} forget records, {what}, not of {wanted or 'a known split'}; give "
            "the log of the same split and rows"
        )
    return found


def _by_place(values: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    """Values by row index as values by place, in the order of the rows."""
    rows = sorted(((int(index), value) for index, value in values.items()), key=lambda row: row[0])
    if [index for index, _ in rows] != list(range(len(rows))):
        raise WagleError(f"{what} lacks records: it has {len(rows)}, the last is {rows[-1][0]}")
    return {f"{name}[{index}]": value for index, value in rows}


def _finite(value: Any, place: str, what: str) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WagleError(f"{what}: {place} is {value}, not a finite number")
    return float(value)


def _tofu_rows(data: Mapping[str, Any], name: str, path: str | Path) -> dict[str, _Rows]:
    log = data[_TOFU_LOGS[name]]
    what = f"{path}, {_TOFU_LOGS[name]}"

    def column(key: str) -> dict[str, Any]:
        if key not in log:
            raise WagleError(f"{what} has no {key}")
        return _by_place(log[key], name, f"{what}, {key}")

    right = {p: _finite(v, p, what) for p, v in column("avg_gt_loss").items()}
    told = {p: _finite(v, p, what) for p, v in column("avg_paraphrased_loss").items()}
    wrong = {
        p: [_finite(v, p, what) for v in vs] for p, vs in column("average_perturb_loss").items()
    }
    if not right.keys() == told.keys() == wrong.keys():
        raise WagleError(
            f"{what}: its losses are of {len(right)}, {len(told)} and {len(wrong)} rows"
        )
    rows = {
        "probability": {
            p: option_probability(mean, wrong[p]) if name in _WORLD else probability(mean)
            for p, mean in right.items()
        },
        "nll": right,
        **_from_ratios({p: log_truth_ratio(told[p], wrong[p]) for p in told}, name),
    }
    for metric, key in (("rouge_l", "rougeL_recall"), ("rouge_1", "rouge1_recall")):
        if key in log:
            rows[metric] = {p: _finite(v, p, what) for p, v in column(key).items()}
    return rows


def _from_ratios(logs: _Rows, name: str) -> dict[str, _Rows]:
    transform = closer_to_1 if name == "forget" else true_better
    return {
        "log_truth_ratio": logs,
        "truth_ratio": {place: transform(value) for place, value in logs.items()},
        "know": {place: know(value) for place, value in logs.items()},
    }


def _open_unlearning_rows(data: Mapping[str, Any], path: str | Path) -> dict[str, dict[str, _Rows]]:
    made: dict[str, dict[str, _Rows]] = {}

    def rows(metric: str, name: str, key: str, entry: Any = None) -> dict[str, Any]:
        found = (data.get(metric) if entry is None else entry) or {}
        what = f"{path}, {metric}"
        places = _by_place(found.get("value_by_index") or {}, name, what)
        lost = next((p for p, value in places.items() if not isinstance(value, Mapping)), None)
        if lost is not None:
            raise WagleError(f"{what}: {lost} is {places[lost]}; evaluate that model again")
        known = any(key in value for value in places.values())
        return {p: value.get(key) for p, value in places.items()} if known else {}

    def take(metric: str, name: str, key: str, ours: str, entry: Any = None) -> None:
        values = rows(metric, name, key, entry)
        if values:
            made.setdefault(name, {})[ours] = {
                p: _finite(v, p, f"{path}, {metric}") for p, v in values.items()
            }

    for name, short in _SHORT.items():
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
        logs = _open_unlearning_ratios(rows, name, path)
        if logs:
            made.setdefault(name, {}).update(_from_ratios(logs, name))
    take("extraction_strength", "forget", "score", "extraction_strength")
    take("exact_memorization", "forget", "score", "exact_memorization")
    for ours, theirs in _ATTACKS.items():
        entry = data.get(f"mia_{theirs}") or {}
        for name in ("forget", "holdout"):
            take(f"mia_{theirs}", name, "score", f"mia_{ours}", entry.get(name) or {})
    return made


def _open_unlearning_ratios(
    rows: Callable[..., dict[str, Any]], name: str, path: str | Path
) -> _Rows:
    """``log R`` of a set: of the losses where they are there, free of OpenUnlearning's epsilon."""
    short = _SHORT[name]
    right = rows(f"{short}_Q_A_{'Prob' if name in _WORLD else 'PARA_Prob'}", name, "avg_loss")
    wrong = rows(f"{short}_Q_A_PERT_Prob", name, "avg_loss")
    if wrong and right.keys() == wrong.keys():
        what = f"{path}, {short}_Q_A_PERT_Prob"
        losses = {p: [_finite(v, p, what) for v in vs] for p, vs in wrong.items()}
        return {p: log_truth_ratio(_finite(right[p], p, what), losses[p]) for p in right}
    metric = f"{short}_{'truth_ratio' if name == 'forget' else 'Truth_Ratio'}"
    made = {}
    for place, value in rows(metric, name, "score").items():
        ratio = _finite(value, place, f"{path}, {metric}")
        if ratio <= 0:
            raise WagleError(f"{path}, {metric}: {place} is {ratio}, which has no logarithm")
        made[place] = math.log(ratio)
    return made


# ---------------------------------------------------------------------------------------------
# Writing


def open_unlearning_names(figures: Figures) -> dict[str, float]:
    """Figures of ``tofu`` under the names of OpenUnlearning's TOFU_SUMMARY.json."""
    names = {
        "extraction_strength": ("forget", "extraction_strength"),
        "exact_memorization": ("forget", "exact_memorization"),
        "model_utility": (OVERALL, "model_utility"),
        "forget_quality": (OVERALL, "forget_quality"),
        "privleak": (OVERALL, "privleak"),
        "forget_Q_A_PARA_Prob": ("forget", "paraphrased_answer"),
    }
    for name, short in _SHORT.items():
        tail = "_normalised" if name in _WORLD else ""
        names[f"{short}_Q_A_Prob{tail}"] = (name, "probability")
        names[f"{short}_Q_A_ROUGE"] = (name, "rouge_l")
        ratio = "truth_ratio" if name == "forget" else "Truth_Ratio"
        names[f"{short}_{ratio}"] = (name, "truth_ratio")
    names |= {f"mia_{theirs}": (OVERALL, f"auc_{ours}") for ours, theirs in _ATTACKS.items()}
    return dict(sorted(_named(figures, names).items()))


def tofu_names(figures: Figures) -> dict[str, float]:
    """Figures of ``tofu`` under the column names of TOFU's aggregate table."""
    names = {}
    for title, metric in (
        ("Prob.", "probability"),
        ("ROUGE", "rouge_l"),
        ("Truth Ratio", "truth_ratio"),
    ):
        for label, name in (
            ("Real Authors", "real_authors"),
            ("Real World", "world_facts"),
            ("Retain", "retain"),
            ("Forget", "forget"),
        ):
            names[f"{title} {label}"] = (name, metric)
    names["Model Utility"] = (OVERALL, "model_utility")
    names["Forget Quality"] = (OVERALL, "forget_quality")
    return _named(figures, names)


def published_names(figures: Figures) -> dict[str, Any]:
    """Figures of ``tofu``, variant ``published``, in the layout of the published tofu.json.

    ``Forget Quality`` there is ``forget_retain_ks``. ``UE`` and ``UT`` are the averages of the
    published tables, which no published code computes.
    """
    made: dict[str, Any] = {}
    for name, theirs in (
        ("forget", "forget"),
        ("retain", "retain"),
        ("real_authors", "real_author"),
        ("world_facts", "world_fact"),
    ):
        accuracy = "embedding_accuracy" if name not in _WORLD else "contains_answer"
        made[theirs] = _named(
            figures,
            {
                "truth_prob": (name, "probability"),
                "rougeL_score": (name, "rouge_l"),
                "truth_ratio": (name, "truth_ratio"),
                "acc": (name, accuracy),
            },
        )
    shares = range(10, 70, 10)
    made["MIA"] = _named(
        figures, {f"Min_{k:.1f}% Prob": (OVERALL, f"forget_retain_auc_{k}") for k in shares}
    )
    made |= _named(
        figures,
        {
            "Forget Quality": (OVERALL, "forget_retain_ks"),
            "UE": (OVERALL, "unlearning_average"),
            "UT": (OVERALL, "utility_average"),
        },
    )
    return {key: value for key, value in made.items() if value != {}}


def _named(figures: Figures, names: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    found = {name: figures.get(group, {}).get(metric) for name, (group, metric) in names.items()}
    return {
        name: figure.value
        for name, figure in found.items()
        if figure is not None and figure.value is not None
    }


FORMS: dict[str, Callable[[Figures], dict[str, Any]]] = {
    "open_unlearning": open_unlearning_names,
    "tofu": tofu_names,
    "published": published_names,
}


def write_names(figures: Figures, path: str | Path, form: str) -> None:
    """Write figures of ``tofu`` as another tool's file: TOFU's as CSV, the others as JSON.

    Args:
        figures: ``figures[set][metric]``.
        path: the file.
        form: in FORMS.
    """
    named = choose(FORMS, form, "form of result file")(figures)
    if form != "tofu":
        write_json(path, named)
        return
    text = io.StringIO()
    table = csv.DictWriter(text, list(named), lineterminator="\n")
    table.writeheader()
    table.writerow(named)
    write_text(path, text.getvalue())
