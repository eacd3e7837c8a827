"""Result files of other tools: what they hold becomes figures, and figures get their names.

TOFU's and OpenUnlearning's logs of a retrained model (``peer_logs``) serve as a reference, record
by record. Names of a tool go to the same figures of wagle; what a tool does not know is left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from wagle.errors import WagleError, choose
from wagle.evaluation.figures import OVERALL, Figure, mean_figure
from wagle.evaluation.peer_logs import (
    ATTACKS,
    SHORT,
    TOFU_LOGS,
    WORLD,
    Found,
    is_muse,
    muse_log_rows,
    open_unlearning_rows,
    tofu_rows,
)
from wagle.evaluation.result import SCHEMA, Evaluation
from wagle.files import read_json, write_json, write_text

Figures: TypeAlias = Mapping[str, Mapping[str, Figure]]

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


def read_result(
    path: str | Path, *, split: str | None = None, corpus: str | None = None
) -> Evaluation:
    """Read a result file of wagle, of TOFU or of OpenUnlearning.

    Args:
        path: a ``wagle-eval/1`` file, TOFU's ``eval_log_aggregated.json`` or OpenUnlearning's
            ``TOFU_EVAL.json`` or ``MUSE_EVAL.json``.
        split: the forget split that a log of TOFU must be of; None takes what the number of its
            records says.
        corpus: of MUSE, which OpenUnlearning's log does not tell.

    Raises:
        WagleError: a file of another kind or split, or without what it should hold; a number that
            is not finite, by its record.
    """
    data = read_json(path)
    if not isinstance(data, Mapping):
        raise WagleError(f"{path} holds no results: it is a list or a single value")
    if data.get("schema") == SCHEMA:
        try:
            return Evaluation.from_json(data)
        except WagleError as error:
            raise WagleError(f"{path} is {error}") from None
    if TOFU_LOGS["forget"] in data:
        return _of_tofu(tofu_rows(data, path), split, path)
    if not any(isinstance(entry, Mapping) and "agg_value" in entry for entry in data.values()):
        raise WagleError(
            f"{path} is no result file of wagle, TOFU (eval_log_aggregated.json) or OpenUnlearning "
            "(TOFU_EVAL.json, MUSE_EVAL.json; its summaries hold no records)"
        )
    if not is_muse(data):
        return _of_tofu(open_unlearning_rows(data, path), split, path)
    if corpus is None:
        raise WagleError(f"{path} is OpenUnlearning's result of MUSE; use it with benchmark muse")
    settings = {"variant": "open_unlearning"}  # its ROUGE has a stemmer
    return _evaluation(muse_log_rows(data, corpus, path), None, settings)


def _of_tofu(rows: Found, split: str | None, path: str | Path) -> Evaluation:
    ratios = rows.get("forget", {}).get("log_truth_ratio")
    if not ratios:
        raise WagleError(f"{path} has no truth ratios of forget records; give the whole log")
    note = basis(_split(len(ratios), split, path), "geometric", "question")
    return _evaluation(rows, note, {"eos": True})


def _evaluation(rows: Found, note: str | None, settings: Mapping[str, Any]) -> Evaluation:
    """The figures of a log; ``note`` is of the forget records' truth ratios."""
    figures = {
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
    return Evaluation(figures, details={"data": {"settings": settings}})


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
        "forget_Q_A_gibberish": ("forget", "fluency"),
        "forget_Q_A_PARA_Prob": ("forget", "paraphrased_answer"),
    }
    for name, short in SHORT.items():
        tail = "_normalised" if name in WORLD else ""
        names[f"{short}_Q_A_Prob{tail}"] = (name, "probability")
        names[f"{short}_Q_A_ROUGE"] = (name, "rouge_l")
        ratio = "truth_ratio" if name == "forget" else "Truth_Ratio"
        names[f"{short}_{ratio}"] = (name, "truth_ratio")
    names |= {f"mia_{theirs}": (OVERALL, f"auc_{ours}") for ours, theirs in ATTACKS.items()}
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
        accuracy = "embedding_accuracy" if name not in WORLD else "contains_answer"
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
