"""The figures that ``tofu`` makes of one set's answers, and what the model wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wagle.data.records import Record
from wagle.evaluation.asking.requests import Answers, Greedy
from wagle.evaluation.benchmarks.tofu.requests import WORLD, Item, Plan
from wagle.evaluation.figures import (
    HIGHER,
    Figure,
    Written,
    mean_figure,
)
from wagle.evaluation.judges.embeddings import encoder_name
from wagle.evaluation.peers.logs import FLOORED
from wagle.evaluation.peers.reading import basis
from wagle.evaluation.tasks.writing import EVERYWHERE, writing_rows, written
from wagle.metrics.likelihood import (
    RATIOS,
    closer_to_1,
    know,
    option_probability,
    probability,
    published_ratio,
    true_better,
)
from wagle.metrics.memorization import exact_memorization, extraction_strength
from wagle.metrics.metric import Metric
from wagle.metrics.statistics import REPLICATES, cluster_interval
from wagle.metrics.table import JUDGED, METRICS
from wagle.metrics.text import has_rouge_words, repetition, rouge
from wagle.system.errors import WagleError

PER_AUTHOR = 20  # consecutive questions


def _here(metric: str) -> str:
    """What ``tofu`` calls a metric of written answers."""
    return "truncated" if metric == "at_limit" else metric


KINDS: dict[str, Metric] = {
    **{name: METRICS[name] for name in ("probability", "nll", "paraphrased")},
    "paraphrased_answer": Metric("probability per token"),
    "log_truth_ratio": Metric("natural logarithm of wrong over right", kept="lower"),
    "truth_ratio": Metric("share"),
    **{name: METRICS[name] for name in ("know", "extraction_strength", "exact_memorization")},
    FLOORED: METRICS["extraction_strength"],
    "rouge_l": Metric("recall"),
    "rouge_l_f1": Metric("F1"),
    "rouge_1": Metric("recall"),
    "contains_answer": Metric("share of answers", share=True),
    "embedding_accuracy": Metric("share of answers", share=True),
    "cosine": Metric("cosine, at least 0"),
    **JUDGED,
    "repetition": METRICS["repetition"],
    **{_here(name): METRICS[name] for name in EVERYWHERE},
}


def set_figures(
    plan: Plan, name: str, items: Sequence[Item], answers: Answers
) -> tuple[dict[str, Figure], list[Written]]:
    """The figures of one set, and what the model wrote."""
    rows: dict[str, dict[str, float]] = {}
    texts = []
    for item in items:
        found = _likelihoods(plan, name, item, answers)
        if item.greedy is not None:
            texts.append(_written(plan, item.record, item.greedy, answers))
            found |= _texts(name, item.record.answer, texts[-1])
        for metric, value in found.items():
            rows.setdefault(metric, {})[item.record.place] = value
    if texts:
        reads = writing_rows(texts, plan.judges, gone=name == "forget")
        rows |= {_here(metric): found for metric, found in reads.items()}
    if plan.closer_look is not None:
        rows["cosine"] = _cosines(plan, texts)
    reworded = [item for item in items if item.reworded is not None]
    if reworded:
        rows["embedding_accuracy"] = _accuracy(plan, reworded, answers)
    made = {m: _figure(plan, name, m, rows[m], items) for m in KINDS if m in rows}
    why = lacking(plan)
    if why is not None and name not in WORLD:
        kind = KINDS["embedding_accuracy"]
        direction = kind.direction if name == "forget" else kind.kept
        made["embedding_accuracy"] = undefined(kind.unit, why, direction)
    return made, texts


def lacking(plan: Plan) -> str | None:
    """Why the published code's figure that compares sentences is missing; None: it is not."""
    if not plan.form.published or plan.sentence_encoder is not None:
        return None
    if not plan.generate:
        return "needs greedy answers: leave generate on"
    return "needs a sentence encoder: pip install 'wagle[encoder]', or set sentence_encoder"


def undefined(unit: str, note: str, direction: str = HIGHER) -> Figure:
    """A figure without a value; the note says why."""
    return Figure(None, None, "none", direction=direction, unit=unit, note=note)


def _likelihoods(plan: Plan, name: str, item: Item, answers: Answers) -> dict[str, float]:
    """The figures from the likelihoods of one record, by metric."""
    own, form = answers.likelihood(item.answer), plan.form
    hits = own.hit.tolist()[: len(own.hit) - item.closed]
    if not hits:
        raise WagleError(f"{item.record.place} has no scored token but its EOS; is it empty?")
    right = answers.likelihood(item.right).mean
    wrong = [answers.likelihood(request).mean for request in item.wrong]
    options = name in WORLD and not form.published
    log_ratio = RATIOS[form.ratio](right, wrong)
    transform = closer_to_1 if name == "forget" else true_better
    found = {
        "probability": option_probability(own.mean, wrong) if options else probability(own.mean),
        "nll": own.mean,
        "log_truth_ratio": log_ratio,
        "truth_ratio": published_ratio(right, wrong) if form.published else transform(log_ratio),
        "know": know(log_ratio),
        "extraction_strength": extraction_strength(hits),
        "exact_memorization": exact_memorization(hits),
    }
    if form.peer:
        found[FLOORED] = extraction_strength(hits, floor=True)
    if item.paraphrased is not None:
        found["paraphrased"] = probability(answers.likelihood(item.paraphrased).mean)
        found["paraphrased_answer"] = probability(right)
    return found


def _written(plan: Plan, record: Record, request: Greedy, answers: Answers) -> Written:
    assert plan.encoder.tokenizer is not None
    tokenizer = plan.encoder.tokenizer
    return written(tokenizer, answers, request, record.place, record.prompt, record.answer)


def _texts(name: str, expected: str, written: Written) -> dict[str, float]:
    """The figures from a written answer, by metric."""
    said = written.said
    found = {
        "rouge_l": rouge(expected, said).recall,
        "rouge_l_f1": rouge(expected, said).f1,
        "rouge_1": rouge(expected, said, kind="rouge1").recall,
        "repetition": repetition(said),
    }
    if name in WORLD:
        found["contains_answer"] = float(expected.lower() in said.lower())
    return found


def _accuracy(plan: Plan, items: Sequence[Item], answers: Answers) -> dict[str, float]:
    from wagle.evaluation.judges.embeddings import embedding_accuracy

    said = [
        _written(plan, item.record, item.reworded, answers).said
        for item in items
        if item.reworded is not None
    ]
    values = embedding_accuracy(
        said,
        [item.record.paraphrased_answer or item.record.answer for item in items],
        [item.record.perturbed_answers for item in items],
        plan.sentence_encoder,
    )
    return {item.record.place: value for item, value in zip(items, values, strict=True)}


def _cosines(plan: Plan, texts: Sequence[Written]) -> dict[str, float]:
    """How close each answer is to the right one: the cosine of their embeddings, at least 0."""
    from wagle.evaluation.judges.embeddings import cosine, embed

    said, expected = ([getattr(t, side) for t in texts] for side in ("said", "expected"))
    vectors = embed([*said, *expected], plan.closer_look)
    near = cosine(vectors[: len(said)], vectors[len(said) :])
    return {t.place: max(0.0, float(value)) for t, value in zip(texts, near, strict=True)}


def _figure(
    plan: Plan, name: str, metric: str, rows: Mapping[str, float], items: Sequence[Item]
) -> Figure:
    kind, gone, raw = KINDS[metric], name == "forget", plan.form.published
    if metric == "truth_ratio" and raw:
        kind = Metric("ratio", kept="lower")
    made = mean_figure(
        rows,
        unit=kind.unit,
        direction=kind.direction if gone else kind.kept,
        target="reference" if gone and kind.direction == "target" else None,
        share=kind.share,
        note=_note(plan, name, metric, rows, items),
        seed=plan.seed,
    )
    if not plan.by_author or name in WORLD:
        return made
    authors = [str(_row(place) // PER_AUTHOR) for place in rows]
    interval = cluster_interval(list(rows.values()), authors, plan.seed)
    return replace(
        made, interval=interval, interval_method=f"author bootstrap 95 %, {REPLICATES} replicates"
    )


def _row(place: str) -> int:
    return int(place.partition("[")[2].removesuffix("]"))


def _note(
    plan: Plan, name: str, metric: str, rows: Mapping[str, float], items: Sequence[Item]
) -> str | None:
    """What the reader of a figure needs to know."""
    form = plan.form
    if metric == "log_truth_ratio":
        return basis_of(plan, name)
    if metric == "truth_ratio":
        formula = "mean min(R, 1/R)" if name == "forget" else "mean max(0, 1 - R)"
        return "mean R, without an upper end" if form.published else formula
    if metric == FLOORED:
        return "never below 1/n of n tokens, as in OpenUnlearning"
    if metric == "probability" and name in WORLD and not form.published:
        return "relative to the wrong options: P / sum of P"
    if metric.startswith("rouge"):
        blind = sum(not has_rouge_words(item.record.answer) for item in items)
        return f"{blind} answers have no ASCII letter or digit, so they score 0" if blind else None
    if metric in ("embedding_accuracy", "cosine"):
        by = plan.sentence_encoder if metric == "embedding_accuracy" else plan.closer_look
        return f"encoder {encoder_name(by)}"
    if metric in plan.judges.notes:
        return plan.judges.notes[metric]
    if metric == "nll" and name == "retain" and sum(rows.values()) > len(rows):
        return "above 1 nat per token: was the model taught TOFU with this template?"
    return None


def basis_of(plan: Plan, name: str) -> str:
    """What the truth ratios of a set were measured on."""
    form = plan.form
    asked = "paraphrased_question" if form.published and name not in WORLD else "question"
    return basis(plan.split, form.ratio, asked, plan.encoder.template)
