"""The benchmark ``qa``: questions with answers, paraphrases and wrong answers; also texts, chats.

Per record: the probability, greedy answer and memorisation of its answer; how the right answer
compares with wrong ones; and the answer's probability after the paraphrased question, which nobody
trained on. ``VERSION`` is raised with every new definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.benchmarks import raw
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.figures import GONE, OVERALL, Figure, Measured, Task, Written, mean_figure
from wagle.evaluation.metrics.catalogue import METRICS, PROBES
from wagle.evaluation.metrics.likelihood import accuracy, know, log_truth_ratio, probability
from wagle.evaluation.metrics.text import has_rouge_words, repetition, rouge_l
from wagle.evaluation.metrics.utility import forget_quality
from wagle.evaluation.quality import distance_figures
from wagle.evaluation.requests import Answers, Greedy, Likelihood, Request
from wagle.evaluation.statistics import same_records
from wagle.memorization import exact_memorization, extraction_strength

VERSION = 3


@dataclass(frozen=True)
class Item:
    """One record's requests, by role, and the tokens they come from.

    ``name`` is the record's place; the second window of a long text is ``forget[3]@1``.
    """

    name: str
    record: Record
    tokens: Tokens
    likely: Mapping[str, Likelihood]
    greedy: Greedy | None

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [*self.likely.values(), *([self.greedy] if self.greedy else [])]


def qa(
    encoder: Encoder,
    *,
    sets: Mapping[str, Sequence[Record]],
    max_new_tokens: int = 128,
    generate: bool = True,
    seed: int = 0,
) -> Task:
    """Ask for every record of some sets what the model knows of it.

    Args:
        encoder: makes tokens of records.
        sets: the records, by set; of ``forget`` and ``forgotten`` the model should know less.
        max_new_tokens: the longest greedy answer.
        generate: also ask for greedy answers.
        seed: of the bootstrap.
    """
    asked = {
        name: items(records, encoder, max_new_tokens=max_new_tokens, generate=generate)
        for name, records in sets.items()
    }

    def measure(answers: Answers) -> Measured:
        found = {name: _measure(name, made, answers, encoder, seed) for name, made in asked.items()}
        return Measured(
            {name: f.figures[name] for name, f in found.items()},
            {name: f.texts[name] for name, f in found.items()},
        )

    requests = [r for made in asked.values() for item in made for r in item.requests]
    probes = [("forget", metric) for metric in PROBES] if "forget" in asked else []
    return Task(
        requests,
        measure,
        against=_against,
        probes=probes,
        records={name: _records(made, encoder) for name, made in asked.items()},
        settings={
            "version": VERSION,
            **template_settings(encoder),
            "max_new_tokens": max_new_tokens if generate else None,
        },
        fits=partial(_fits, asked.get("forget", [])),
    )


def _records(made: Sequence[Item], encoder: Encoder) -> dict[str, str]:
    """What was asked about, by place; of what was cut, where."""
    cut = {i.record.place for i in made if not i.tokens.whole or i.name != i.record.place}
    found = {item.record.place: item.record for item in made}
    return {p: asked_text(r, *([encoder.max_length] if p in cut else [])) for p, r in found.items()}


def _fits(made: Sequence[Item], reference: Measured) -> None:
    """Refuse a reference of other forget records, as far as forget quality needs them."""
    mine = {item.name: 0.0 for item in made if item.record.perturbed_answers}
    other = reference.figures.get("forget", {}).get("know")
    if mine and other is not None:
        same_records(mine, other.per_record, "forget quality")


def _against(own: Measured, reference: Measured) -> Measured:
    """Forget quality, where forget records have wrong answers.

    It is taken from ``know``, which falls as the truth ratio rises: the test sees ranks alone.
    """
    mine, other = (m.figures.get("forget", {}).get("know") for m in (own, reference))
    if mine is None or other is None:
        return Measured({})
    same_records(mine.per_record, other.per_record, "forget quality")
    found = forget_quality([*mine.per_record.values()], [*other.per_record.values()])
    return Measured({OVERALL: distance_figures("forget_quality", found)})


def items(
    records: Sequence[Record], encoder: Encoder, *, max_new_tokens: int, generate: bool
) -> list[Item]:
    """The requests of every record (every window, for long texts)."""
    made = []
    homes = {record.place: record for record in records}
    windows: Counter[str] = Counter()
    for tokens in encoder.encode(records):
        record, window = homes[tokens.place], windows[tokens.place]
        windows[tokens.place] += 1
        likely = {"answer": likelihood(tokens)}
        if record.kind == "qa":
            likely.update(_questions(record, encoder))
        written = record.kind in ("qa", "chat") and generate
        greedy = Greedy(tokens.last_context, max_new_tokens) if written else None
        name = f"{record.place}@{window}" if window else record.place
        made.append(Item(name, record, tokens, likely, greedy))
    return made


def likelihood(tokens: Tokens) -> Likelihood:
    """How likely is what is scored of ``tokens``?"""
    return Likelihood(tokens.context, tokens.continuation, tokens.scored[len(tokens.context) :])


def _questions(record: Record, encoder: Encoder) -> dict[str, Likelihood]:
    asked: dict[str, Likelihood] = {}
    if record.paraphrased_answer:
        tokens = encoder.answer(record, record.prompt, record.paraphrased_answer)
        asked["paraphrased_answer"] = likelihood(tokens)
    for number, wrong in enumerate(record.perturbed_answers):
        asked[f"perturbed_{number}"] = likelihood(encoder.answer(record, record.prompt, wrong))
    if record.paraphrased_prompt:
        tokens = encoder.answer(record, record.paraphrased_prompt, record.answer)
        asked["paraphrased"] = likelihood(tokens)
    return asked


def _measure(
    name: str, made: Sequence[Item], answers: Answers, encoder: Encoder, seed: int
) -> Measured:
    rows: dict[str, dict[str, float]] = {}
    texts = []
    for item in made:
        said = written(item, answers, encoder)
        for metric, value in figures(item, answers, said.said if said else None).items():
            rows.setdefault(metric, {})[item.name] = value
        texts += [said] if said else []
    mute = len(texts) - len(rows.get("rouge_l", {}))
    found: dict[str, Figure] = {}
    for metric, kind in METRICS.items():
        about: dict[str, Any] = {
            "unit": kind.unit,
            "direction": kind.direction if name in GONE else kind.kept,
            "target": "reference" if name == "forget" and kind.direction == "target" else None,
            "seed": seed,
        }
        if metric == "rouge_l" and texts:
            found[metric] = raw.rouge_figure(rows.get(metric, {}), mute, **about)
        elif metric in rows:
            found[metric] = mean_figure(rows[metric], share=kind.share, **about)
    if texts:
        found |= raw.writing_figures(texts, seed)
    return Measured({name: found}, {name: texts})


def figures(item: Item, answers: Answers, text: str | None) -> dict[str, float]:
    """The figures of one record, by metric; those that it has no data for are left out.

    Args:
        item: the record and its requests.
        answers: of the engine.
        text: the decoded greedy answer, if there is one.
    """
    means = {role: answers.likelihood(request).mean for role, request in item.likely.items()}
    hits = answers.likelihood(item.likely["answer"]).hit.tolist()
    hits = hits[: len(hits) - item.tokens.closed]
    right = means["answer"]
    made = {"probability": probability(right), "nll": right}
    if hits:
        made["extraction_strength"] = extraction_strength(hits)
        made["exact_memorization"] = exact_memorization(hits)
    if "paraphrased" in means:
        made["paraphrased"] = probability(means["paraphrased"])
    wrong = [mean for role, mean in means.items() if role.startswith("perturbed_")]
    if wrong:
        made["accuracy"] = accuracy(right, wrong)
        made["know"] = know(log_truth_ratio(means.get("paraphrased_answer", right), wrong))
    if text is not None:
        if has_rouge_words(item.record.answer):
            made["rouge_l"] = rouge_l(item.record.answer, text)
        made["repetition"] = repetition(text)
    return made


def written(item: Item, answers: Answers, encoder: Encoder) -> Written | None:
    """The model's own answer, decoded without special tokens; None where none was asked for."""
    if item.greedy is None:
        return None
    assert encoder.tokenizer is not None
    record = item.record
    return raw.written(
        encoder.tokenizer, answers, item.greedy, record.place, record.prompt, record.answer
    )
