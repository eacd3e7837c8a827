"""What a model wrote, for all benchmarks: decoded, and how it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from wagle.evaluation.asking.requests import Answers, Greedy, Sample
from wagle.evaluation.figures import TARGET, Figure, Written, mean_figure
from wagle.evaluation.judges.classifiers import Judges
from wagle.evaluation.tasks.raw import decoded
from wagle.metrics.metric import Answered, values
from wagle.metrics.table import ALL, METRICS, WRITTEN

EVERYWHERE = {name: kind for name, kind in METRICS.items() if kind.everywhere}
NO_JUDGES = Judges()


def written(
    tokenizer: PreTrainedTokenizerBase,
    answers: Answers,
    asked: Greedy | Sample,
    place: str,
    question: str,
    expected: str,
) -> Written:
    """What the model wrote after a prompt, with what it was asked and what was expected."""
    found = answers.text(asked)
    return Written(place, question, expected, decoded(tokenizer, found.ids), found.finished)


def rouge_figure(
    rows: Mapping[str, float],
    mute: int,
    *,
    unit: str,
    direction: str,
    target: str | None = None,
    seed: int = 0,
) -> Figure:
    """The mean of a ROUGE over records; without any, it has no value.

    Args:
        rows: value per record, by place, for those whose right answer holds a word that ROUGE sees.
        mute: how many others there are.
        unit: the unit of the values.
        direction: which way is better.
        target: the goal, if direction is ``target``.
        seed: for the bootstrap.
    """
    of = f"{mute} of {mute + len(rows)} answers" if rows else "the answers"
    note = f"{of} have no ASCII letter or digit, all that ROUGE sees: left out" if mute else None
    if not rows:
        return Figure(None, None, "none", {}, direction, unit, target, note)
    return mean_figure(rows, unit=unit, direction=direction, target=target, note=note, seed=seed)


def writing_rows(
    texts: Sequence[Written], judges: Judges = NO_JUDGES, *, gone: bool = False
) -> dict[str, dict[str, float]]:
    """How answers read, by metric and place, whatever was asked.

    Args:
        texts: what the model wrote.
        judges: classifiers that say more about it.
        gone: whether these are answers that the model should not know.
    """
    rows: dict[str, dict[str, float]] = {metric: {} for metric in EVERYWHERE}
    for text in texts:
        answered = Answered(said=text.said, finished=text.finished)
        for metric, value in values(EVERYWHERE, answered).items():
            rows[metric][text.place] = value
    last = {metric: rows.pop(metric) for metric in WRITTEN}
    return {**rows, **judges.rows(texts, forget=gone), **last}


def writing_figures(
    texts: Sequence[Written],
    seed: int,
    judges: Judges = NO_JUDGES,
    *,
    gone: bool = False,
    target: str | None = None,
) -> dict[str, Figure]:
    """The means of ``writing_rows``; ``target`` applies to those that have one if ``gone``."""
    made = {}
    for metric, found in writing_rows(texts, judges, gone=gone).items():
        kind = ALL[metric]
        made[metric] = mean_figure(
            found,
            unit=kind.unit,
            direction=kind.direction if gone else kind.kept,
            target=target if gone and kind.direction == TARGET else None,
            share=kind.share,
            note=judges.notes.get(metric),
            seed=seed,
        )
    return made
