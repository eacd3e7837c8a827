"""Read the result files of other projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import mean_figure
from wagle.evaluation.peers.logs import (
    TOFU_LOGS,
    WITH_END,
    Found,
    is_muse,
    muse_log_rows,
    open_unlearning_rows,
    tofu_rows,
)
from wagle.evaluation.result import SCHEMA, Evaluation
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json

_ROWS_PER_PERCENT, _FIRST_ROWS = 40, 300  # of TOFU's 4 000 records; what its own code evaluates


def basis(split: str, ratio: str, asked: str, template: str | None = None) -> str:
    """What truth ratios were measured on, as their figure's note says.

    Only those on one basis may be compared; another tool's file does not state its template.

    Args:
        split: ``forget10``.
        ratio: the kind of mean over the wrong answers, ``geometric`` or ``arithmetic``.
        asked: the field of the question.
        template: its name, or None if it is not known.
    """
    text = f"{split}, {ratio} mean over the wrong answers, after {asked}"
    return text if template is None else f"{text}; template {template}"


def same_basis(one: str | None, other: str | None) -> bool:
    """Whether two ``basis`` notes may be compared: equal in everything that both state."""
    parts = [(note or "").split("; template ") for note in (one, other)]
    return all(mine == theirs for mine, theirs in zip(*parts, strict=False))


def read_result(
    path: str | Path, *, split: str | None = None, corpus: str | None = None
) -> Evaluation:
    """Read a result file from wagle, TOFU or OpenUnlearning.

    Args:
        path: a ``wagle-eval/1`` file, TOFU's ``eval_log_aggregated.json`` or OpenUnlearning's
            ``TOFU_EVAL.json`` or ``MUSE_EVAL.json``.
        split: the forget split that a TOFU log must have; None infers it from the number of
            records.
        corpus: MUSE's corpus, which OpenUnlearning's log does not state.

    Raises:
        WagleError: the file has another kind or split, or lacks what it should hold; a number is
            not finite, and its record is named.
    """
    data = read_json(path, finite=False)
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
            f"{path} is not a result file of wagle, TOFU (eval_log_aggregated.json) or "
            "OpenUnlearning (TOFU_EVAL.json, MUSE_EVAL.json; its summaries hold no records)"
        )
    if not is_muse(data):
        return _of_tofu(open_unlearning_rows(data, path), split, path)
    if corpus is None:
        raise WagleError(f"{path} is OpenUnlearning's result for MUSE; use it with benchmark muse")
    settings = {"variant": "open_unlearning"}  # its ROUGE has a stemmer
    return _evaluation(muse_log_rows(data, corpus, path), None, settings)


def _of_tofu(rows: Found, split: str | None, path: str | Path) -> Evaluation:
    ratios = rows.get("forget", {}).get("log_truth_ratio")
    if not ratios:
        raise WagleError(f"{path} has no truth ratios of forget records; give the whole log")
    note = basis(_split(len(ratios), split, path), "geometric", "question")
    attacked = {"mia_loss", "mia_zlib"} & rows.get("holdout", {}).keys()
    return _evaluation(rows, note, {"eos": True, **({WITH_END: True} if attacked else {})})


def _evaluation(rows: Found, note: str | None, settings: Mapping[str, Any]) -> Evaluation:
    """The figures of a log; ``note`` belongs to the forget records' truth ratios."""
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
    """The split with that many forget records; one other than wanted is an error."""
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
