"""What a served model cannot be asked for: figures without a value, and what a verdict rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wagle.evaluation.asking.requests import ARGMAX, GRADIENTS, LIKELIHOODS, MOMENTS
from wagle.evaluation.figures import TARGET, Figure
from wagle.evaluation.result import Evaluation
from wagle.metrics.table import METRICS

_ABSENT = "absent: "  # begins the note of such a figure


def absent_figure(
    why: str,
    *,
    unit: str,
    direction: str = TARGET,
    target: float | str | None = None,
    seed: int = 0,
) -> Figure:
    """A figure without a value, marked absent.

    Args:
        why: a sentence without a full stop.
        unit: of the figure, had it a value.
        direction: which way would be better.
        target: the goal, if direction is ``target``.
        seed: unused; so that the arguments are those of ``mean_figure``.
    """
    del seed
    note = f"{_ABSENT}{why}"
    return Figure(None, None, "none", {}, direction, unit, target, note, count=0)


def is_absent(figure: Figure | None) -> bool:
    """Whether a figure is marked absent."""
    return figure is not None and figure.value is None and (figure.note or "").startswith(_ABSENT)


def why_absent(*figures: Figure) -> str:
    """Why the first of some figures that is marked absent is."""
    return next(str(f.note).removeprefix(_ABSENT) for f in figures if is_absent(f))


def absent_metrics(
    absent: Mapping[str, str], wanted: Callable[[], Iterable[str]]
) -> dict[str, str]:
    """Which metrics of how likely answers are a model cannot be asked for, and why.

    Args:
        absent: what the model cannot be asked for, as ``Answers`` has it.
        wanted: gives the metrics that the records allow; called only if something is absent.
    """
    if LIKELIHOODS in absent:
        return dict.fromkeys(wanted(), absent[LIKELIHOODS])
    if ARGMAX in absent:
        return {m: absent[ARGMAX] for m in wanted() if "hits" in METRICS[m].needs}
    return {}


def lost_attacks(attacks: Iterable[str], absent: Mapping[str, str]) -> dict[str, str]:
    """Which membership attacks a model cannot be asked for, by label, and why."""
    lost = {}
    for label in attacks:
        needs = [LIKELIHOODS]
        if label.startswith("min_k++"):
            needs.append(MOMENTS)
        if label == "gradnorm":
            needs = [GRADIENTS]
        why = [absent[need] for need in needs if need in absent]
        if why:
            lost[label] = why[0]
    return lost


def rests_on(
    found: Evaluation, before: Evaluation | None, reference: Evaluation | None
) -> tuple[str, ...]:
    """A sentence that says which probes a verdict rests on, if some are absent from a model."""
    sides = [side for side in (found, before, reference) if side is not None]
    declared = [tuple(pair) for pair in found.details.get("probes") or ()]
    lost: dict[str, str] = {}
    for name, metric in declared:
        for side in sides:
            figure = side.figures.get(name, {}).get(metric)
            if figure is not None and is_absent(figure):
                lost[f"{name}.{metric}"] = why_absent(figure)
    if not lost:
        return ()
    kept = [f"{n}.{m}" for n, m in declared if all(_has(side, n, m) for side in sides)]
    why = "; ".join(dict.fromkeys(lost.values()))
    base = f"The verdict rests on {_listed(kept)} alone" if kept else "No probe is left"
    return (f"{base}: {why}, so {_listed(lost)} {'is' if len(lost) == 1 else 'are'} absent.",)


def _has(side: Evaluation, name: str, metric: str) -> bool:
    figure = side.figures.get(name, {}).get(metric)
    return figure is not None and figure.value is not None


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
