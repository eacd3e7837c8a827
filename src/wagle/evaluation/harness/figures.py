"""Figures with intervals, from the values that the lm-eval library gives every question."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wagle.evaluation.figures import HIGHER, LOWER, TARGET, Figure, Measured, mean_figure
from wagle.metrics.statistics import REPLICATES, draws, percentiles
from wagle.system.errors import WagleError

_Figures = dict[str, dict[str, Figure]]
_BOOTSTRAP = f"bootstrap 95 %, {REPLICATES} replicates"
_SHARE = "share of records"
_OF_RIGHT = {"acc", "acc_norm", "acc_bytes", "exact_match", "bleu_acc", "rouge1_acc", "rougeL_acc"}

# How nats per unit become the figure, and its unit.
RATIOS: dict[str, tuple[Callable[[float], float], str]] = {
    "word_perplexity": (math.exp, "perplexity per word"),
    "byte_perplexity": (math.exp, "perplexity per byte"),
    "bits_per_byte": (lambda nats: nats / math.log(2), "bits per byte"),
}


def measure_samples(
    found: Mapping[str, Any],
    groups: Mapping[str, Any],
    means: Mapping[str, Sequence[str]],
    notes: Mapping[str, str | None],
    *,
    forgotten: bool = False,
    seed: int = 0,
) -> Measured:
    """Figures of every task and group, one set each, and composites under ``overall``.

    Args:
        found: the result of ``simple_evaluate`` with ``log_samples``.
        groups: the library's groups, by name.
        means: composites by name, as the tasks whose ``acc`` they average without weights.
        notes: what a reader of a task's figures needs to know, by task.
        forgotten: ``acc`` should fall.
        seed: for the bootstrap.

    Returns:
        The summary has the names ``task/metric`` and ``mean/composite``.

    Raises:
        WagleError: a log-probability or a value is not finite; its task and question are named.
    """
    figures: _Figures = {}
    metrics: dict[str, str] = {}  # by label, which is metric and filter
    for name, samples in found["samples"].items():
        for key, rows in _rows(name, samples).items():
            metric, filtered = key
            higher = found["higher_is_better"][name].get(metric)
            direction = TARGET if higher is None else HIGHER if higher else LOWER
            label = metric if filtered == "none" else f"{metric}_{filtered}"
            metrics[label] = metric
            figures.setdefault(name, {})[label] = _figure(
                metric,
                rows,
                found["results"][name][",".join(key)],
                direction=LOWER if forgotten and metric == "acc" else direction,
                note=notes[name],
                seed=seed,
            )
    for group in groups.values():
        made = _group_figures(group, figures, metrics, seed)
        if made:
            figures[group.name] = made
    composites = {
        name: _mean_of([figures[task]["acc"] for task in tasks], seed)
        for name, tasks in means.items()
    }
    summary = {f"{s}/{m}": f.value for s, found in figures.items() for m, f in found.items()}
    summary |= {f"mean/{name}": figure.value for name, figure in composites.items()}
    if composites:
        figures["overall"] = composites
    return Measured(figures, summary=summary)


def _rows(name: str, samples: Sequence[Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The library's value for every question, by metric and filter."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for sample in samples:
        place = f"{name}[{sample['doc_id']}]"
        for said in sample["filtered_resps"]:  # (log-likelihood, greedy?), or one, or a text
            value = said[0] if isinstance(said, tuple) else said
            if isinstance(value, float) and not math.isfinite(value):
                raise WagleError(
                    f"{place}: the log-probability of an answer is {value}; evaluate in float32"
                )
        for metric in sample["metrics"]:
            rows.setdefault((metric, sample["filter"]), {})[place] = sample[metric]
    return rows


def _figure(
    metric: str, rows: Mapping[str, Any], value: Any, *, direction: str, note: str | None, seed: int
) -> Figure:
    """A figure of a task; if it is not the mean of its rows, the library's number as it is."""
    if metric in RATIOS:
        return ratio_figure(metric, rows, direction=direction, note=note, seed=seed)
    numbers = {
        p: float(v) for p, v in rows.items() if isinstance(v, int | float | np.number | np.bool_)
    }
    whole = len(numbers) == len(rows)
    mean = math.fsum(numbers.values()) / len(rows)
    if whole and (not math.isfinite(mean) or math.isclose(mean, value, abs_tol=1e-12)):
        share = metric in _OF_RIGHT and set(numbers.values()) <= {0.0, 1.0}
        unit = _SHARE if share else "mean over records"
        return mean_figure(
            numbers, unit=unit, direction=direction, share=share, note=note, seed=seed
        )
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WagleError(f"{metric} of {next(iter(rows))} and its task is {value}; it is unusable")
    method = "none: lm-eval's own aggregate"
    kept = numbers if whole else {}
    return Figure(
        float(value), None, method, kept, direction, "lm-eval", note=note, count=len(rows)
    )


def ratio_figure(
    metric: str,
    rows: Mapping[str, tuple[float, int]],
    *,
    direction: str = LOWER,
    note: str | None = None,
    seed: int = 0,
) -> Figure:
    """A perplexity over documents: a ratio of sums, not the mean of the documents' ratios.

    Args:
        metric: a key of RATIOS.
        rows: by place, a document's log-likelihood in nats and how many words or bytes it has.
        direction: which way is better.
        note: for the reader.
        seed: for the bootstrap, which draws documents.

    Returns:
        A figure that holds nats per word or byte for every record. If the perplexity is beyond
        float64, the value is None.

    Raises:
        WagleError: a document has no words.
    """
    for place, (_, size) in rows.items():
        if size < 1:
            raise WagleError(f"{place} is empty; {metric} needs a text")
    make, unit = RATIOS[metric]
    nats = np.asarray([-likelihood for likelihood, _ in rows.values()], dtype=np.float64)
    sizes = np.asarray([size for _, size in rows.values()], dtype=np.float64)
    blocks = draws(np.random.default_rng(seed), len(rows))
    low, high = percentiles(
        np.concatenate([nats[d].sum(axis=1) / sizes[d].sum(axis=1) for d in blocks])
    )
    whole = math.fsum(nats) / math.fsum(sizes)
    rows_made = dict(zip(rows, (nats / sizes).tolist(), strict=True))
    told = [note, "per record: nats; the value is a ratio of sums"]
    try:
        value, interval = make(whole), (make(low), make(high))
    except OverflowError:
        told.append(f"exp({whole:.1f}) or its interval is beyond what a number can hold")
        value, interval = None, None
    text = "; ".join(part for part in told if part)
    return Figure(value, interval, _BOOTSTRAP, rows_made, direction, unit, note=text)


def _group_figures(
    group: Any, figures: _Figures, metrics: Mapping[str, str], seed: int
) -> dict[str, Figure]:
    """The means of a group's tasks, weighted by their size or not, as the group says."""
    made = {}
    names = [task.task_name for task in group.get_all_tasks()]
    for rule in group.aggregate_metric_list or []:
        for label in [label for label in figures[names[0]] if metrics[label] == rule.metric]:
            parts = [figures[name].get(label) for name in names]
            whole = [part for part in parts if part is not None and part.per_record]
            if rule.aggregation == "mean" and len(whole) == len(names):
                made[label] = (_pooled if rule.weight_by_size else _mean_of)(whole, seed)
    return made


def _pooled(parts: Sequence[Figure], seed: int) -> Figure:
    """The mean over the records of all parts; the figure does not list the records."""
    rows = {place: value for part in parts for place, value in part.per_record.items()}
    first = parts[0]
    share = all(part.unit == _SHARE for part in parts)
    whole = mean_figure(
        rows,
        unit=first.unit,
        direction=first.direction,
        share=share,
        note=_common(parts),
        seed=seed,
    )
    return dataclasses.replace(whole, per_record={}, count=len(rows))


def _mean_of(parts: Sequence[Figure], seed: int) -> Figure:
    """The unweighted mean of means; the bootstrap draws records within each part."""
    generator = np.random.default_rng(seed)
    drawn = []
    for part in parts:
        # How often each distinct value is drawn: the same bootstrap, without 10 000 rows of places
        values, counts = np.unique(list(part.per_record.values()), return_counts=True)
        often = generator.multinomial(counts.sum(), counts / counts.sum(), size=REPLICATES)
        drawn.append(often @ values / counts.sum())
    means = [math.fsum(part.per_record.values()) / len(part.per_record) for part in parts]
    return Figure(
        math.fsum(means) / len(means),
        percentiles(np.mean(drawn, axis=0)),
        f"{_BOOTSTRAP}, within each task",
        {},
        parts[0].direction,
        parts[0].unit,
        note=_common(parts),
        count=sum(part.n for part in parts),
    )


def _common(parts: Sequence[Figure]) -> str | None:
    """The note that all parts share, or where to look."""
    notes = {part.note for part in parts}
    return notes.pop() if len(notes) == 1 else "see the notes of its tasks"
