"""The benchmark ``qa``: questions with answers, paraphrases and wrong answers; also texts.

Per record: the probability, greedy answer and extraction strength of its answer; how the right
answer compares with wrong ones; and the answer's probability after the paraphrased question, which
nobody trained on. ``version`` is raised with every new definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation import metrics
from wagle.evaluation.engine import (
    Answers,
    Greedy,
    GreedyAnswer,
    Likelihood,
    LikelihoodAnswer,
    Request,
)

NAME, VERSION = "qa", 1


@dataclass(frozen=True)
class Item:
    """One record's requests, by role, and the tokens they come from.

    ``name`` is the record's place; the second window of a long text is ``forget[3]@1``.
    """

    name: str
    record: Record
    tokens: Tokens
    requests: Mapping[str, Request]


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
        requests: dict[str, Request] = {"answer": _likelihood(tokens)}
        if record.kind == "qa":
            requests.update(_questions(record, encoder))
        if record.kind in ("qa", "chat") and generate:
            requests["greedy"] = Greedy(tokens.last_context, max_new_tokens)
        name = f"{record.place}@{window}" if window else record.place
        made.append(Item(name, record, tokens, requests))
    return made


def _likelihood(tokens: Tokens) -> Likelihood:
    return Likelihood(tokens.context, tokens.continuation, tokens.scored[len(tokens.context) :])


def _questions(record: Record, encoder: Encoder) -> dict[str, Request]:
    asked: dict[str, Request] = {}
    if record.paraphrased_answer:
        tokens = encoder.answer(record, record.prompt, record.paraphrased_answer)
        asked["paraphrased_answer"] = _likelihood(tokens)
    for number, wrong in enumerate(record.perturbed_answers):
        asked[f"perturbed_{number}"] = _likelihood(encoder.answer(record, record.prompt, wrong))
    if record.paraphrased_prompt:
        tokens = encoder.answer(record, record.paraphrased_prompt, record.answer)
        asked["paraphrased"] = _likelihood(tokens)
    return asked


def figures(item: Item, answers: Answers, text: str | None) -> dict[str, float]:
    """The figures of one record, by metric; those that it has no data for are left out.

    Args:
        item: the record and its requests.
        answers: of the engine.
        text: the decoded greedy answer, if there is one.
    """

    def mean(role: str) -> float:
        found = answers[item.requests[role]]
        assert isinstance(found, LikelihoodAnswer)
        return found.mean

    own = answers[item.requests["answer"]]
    assert isinstance(own, LikelihoodAnswer)
    hits = own.hit.tolist()[: len(own.hit) - item.tokens.closed]
    right = mean("answer")
    made = {"probability": metrics.probability(right)}
    if hits:
        made["extraction_strength"] = metrics.extraction_strength(hits)
    if "paraphrased" in item.requests:
        made["paraphrased"] = metrics.probability(mean("paraphrased"))
    wrong = [mean(role) for role in item.requests if role.startswith("perturbed_")]
    if wrong:
        made["accuracy"] = metrics.accuracy(right, wrong)
        told = mean("paraphrased_answer") if "paraphrased_answer" in item.requests else right
        made["know"] = metrics.know(metrics.log_truth_ratio(told, wrong))
    if text is not None:
        made["rouge_l"] = metrics.rouge_l(item.record.answer, text)
    return made


def greedy_text(item: Item, answers: Answers, encoder: Encoder) -> str | None:
    """The model's own answer, decoded without special tokens; None where none was asked for."""
    if "greedy" not in item.requests:
        return None
    found = answers[item.requests["greedy"]]
    assert isinstance(found, GreedyAnswer)
    assert encoder.tokenizer is not None
    return str(encoder.tokenizer.decode(list(found.ids), skip_special_tokens=True)).strip()
