"""The names that other projects give to figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from wagle.evaluation.figures import OVERALL, Figure
from wagle.evaluation.peers.logs import (
    FLOORED,
    SHORT,
    THEIR_ATTACKS,
    WORLD,
)
from wagle.system.errors import choose
from wagle.system.files.atomic import write_json, write_text

_ON_THE_MEAN = ("mia_loss", "mia_zlib")
_OF_RATIOS = ("truth_ratio", "model_utility", "forget_quality")
Figures: TypeAlias = Mapping[str, Mapping[str, Figure]]


def open_unlearning_names(figures: Figures) -> dict[str, float]:
    """Figures of ``tofu`` under the names of OpenUnlearning's TOFU_SUMMARY.json.

    A figure of another definition has no such name: its extraction strength and its attacks on the
    mean are made by the variant ``open_unlearning`` alone, and its truth ratios, with what is made
    of them, take the geometric mean.
    """
    names = {
        "extraction_strength": ("forget", FLOORED),
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
    names |= {f"mia_{theirs}": (OVERALL, f"auc_{ours}") for ours, theirs in THEIR_ATTACKS.items()}
    forget = figures.get("forget", {})
    if FLOORED not in forget:
        names = {name: home for name, home in names.items() if name not in _ON_THE_MEAN}
    ratios = forget.get("log_truth_ratio")
    if ratios is not None and "arithmetic" in (ratios.note or ""):
        names = {n: home for n, home in names.items() if not n.lower().endswith(_OF_RATIOS)}
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

    ``Forget Quality`` there is ``forget_retain_ks``. ``UE`` and ``UT`` are the averages in the
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
