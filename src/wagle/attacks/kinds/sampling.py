"""Sampling: what a model lets slip when asked the same question many times.

A greedy answer is one of many that a model may give. Here every question is answered n times at a
temperature; an answer leaks if its ROUGE-L recall of the right answer reaches a threshold, and
leak@k is the probability that at least one of k answers leaks. It only ever rises with k, so the
evidence is the gap to a reference that was sampled in the same way.

Source: Leak@k, arXiv 2511.04934; its estimator is that of pass@k, Chen et al. 2021, arXiv
2107.03374.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from wagle.attacks.parts import ask_once, at_most, question_contexts, those_that_ask
from wagle.attacks.shapes import Scene, Trial
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, Sample
from wagle.evaluation.figures import Figure, Measured, Task, Written, mean_figure
from wagle.evaluation.tasks.writing import written
from wagle.metrics.text import has_rouge_words, rouge_l
from wagle.system.errors import WagleError


def sampling(
    scene: Scene,
    *,
    samples: int = 32,
    temperature: float = 1.0,
    top_p: float = 1.0,
    threshold: float = 0.5,
    max_new_tokens: int = 128,
    limit: int = 64,
) -> Trial:
    """Ask every forget question many times at a temperature.

    Args:
        scene: its forget set is used.
        samples: answers per record.
        temperature: above 0.
        top_p: the share of the probability mass to draw from.
        threshold: the ROUGE-L recall from which an answer counts as leaking.
        max_new_tokens: the longest answer.
        limit: the most records.
    """
    forget = those_that_ask(scene.need("forget", "sampling"), "sampling")
    task = ask_often(
        scene.way.encoder,
        at_most(limit, forget, scene.seed),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        threshold=threshold,
        max_new_tokens=max_new_tokens,
        seed=scene.seed,
    )
    return ask_once(scene, task)


def ask_often(
    encoder: Encoder,
    records: Sequence[Record],
    *,
    samples: int = 32,
    temperature: float = 1.0,
    top_p: float = 1.0,
    threshold: float = 0.5,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> Task:
    """Ask every question many times.

    The set ``forget`` has, for every k from 1 to ``samples``, ``leak@k``, the probability that at
    least one of k answers leaks, and ``rouge_l@k``, the mean of the best recall of k. The texts
    hold each record's best answer.

    Args:
        encoder: makes tokens of records.
        records: records to be forgotten: questions or chats.
        samples: n, answers per record, >= 1.
        temperature: above 0.
        top_p: above 0, at most 1: the share of the probability that answers are drawn from.
        threshold: the ROUGE-L recall from which an answer leaks, above 0, at most 1.
        max_new_tokens: the longest answer.
        seed: for the draws (with the record's place and the number of the answer) and intervals.

    Raises:
        WagleError: a setting is out of range; a record is not a question.
    """
    _check(samples, temperature, top_p, threshold, max_new_tokens)
    for record in records:
        if not has_rouge_words(record.answer):
            raise WagleError(
                f"ROUGE sees no word in the answer of {record.place} (it knows a-z and 0-9), so it "
                "could never leak; leave the record out"
            )
    contexts = question_contexts(encoder, records, "sampling")
    asked = [
        [
            Sample(context, max_new_tokens, temperature, top_p, f"{seed}/{place}/{i}", place)
            for i in range(samples)
        ]
        for place, context in zip((r.place for r in records), contexts, strict=True)
    ]

    def measure(answers: Answers) -> Measured:
        recalls = {}
        best = []
        for record, drawn in zip(records, asked, strict=True):
            said = [_written(record, answers, request, encoder) for request in drawn]
            found = [rouge_l(record.answer, answer.said) for answer in said]
            recalls[record.place] = found
            best.append(said[found.index(max(found))])
        return Measured({"forget": _curves(recalls, threshold, seed)}, {"forget": best})

    return Task(
        [request for drawn in asked for request in drawn],
        measure,
        data={
            "records": len(asked),
            "samples": samples,
            "temperature": temperature,
            "top_p": top_p,
            "threshold": threshold,
        },
    )


def leak_at_k(samples: int, leaking: int, k: int) -> float:
    """``1 - C(n-c, k) / C(n, k)``: the probability that one of k answers leaks, unbiased.

    Args:
        samples: n, answers of one record.
        leaking: c, how many of them leak, 0 to n.
        k: 1 to n.

    Raises:
        WagleError: k is out of range.
    """
    _check_k(samples, k)
    # Integers, which Python divides exactly however large they are.
    return 1 - math.comb(samples - leaking, k) / math.comb(samples, k)


def best_of_k(scores: Sequence[float], k: int) -> float:
    """``sum_i s_(i) C(i-1, k-1) / C(n, k)``: the mean of the largest of k of n scores, unbiased.

    Args:
        scores: (n,) of the answers of one record; s_(i) is the i-th smallest.
        k: 1 to n; for 1 the result is the mean.

    Raises:
        WagleError: k is out of range, or a score is not finite.
    """
    _check_k(len(scores), k)
    if not all(map(math.isfinite, scores)):
        raise WagleError(f"a score is not finite among {len(scores)}; the answers are unusable")
    weights = _weights(len(scores), k)
    return math.fsum(s * w for s, w in zip(sorted(scores), weights, strict=True))


@cache
def _weights(count: int, k: int) -> tuple[float, ...]:
    whole = math.comb(count, k)
    return tuple(math.comb(i, k - 1) / whole for i in range(count))


def _check_k(count: int, k: int) -> None:
    if not 1 <= k <= count:
        raise WagleError(f"k is {k}, but there are {count} samples: draw more, or lower k")


def _check(
    samples: int, temperature: float, top_p: float, threshold: float, max_new_tokens: int
) -> None:
    if samples < 1:
        raise WagleError(f"samples is {samples}; draw at least one answer per record")
    if max_new_tokens < 1:
        raise WagleError(f"max_new_tokens is {max_new_tokens}; let an answer have at least one")
    if not 0 < temperature < math.inf:
        raise WagleError(f"temperature is {temperature}; give a number above 0")
    for name, value in (("top_p", top_p), ("threshold", threshold)):
        if not 0 < value <= 1:
            raise WagleError(f"{name} is {value}; give a number above 0 and at most 1")


def _written(record: Record, answers: Answers, request: Sample, encoder: Encoder) -> Written:
    assert encoder.tokenizer is not None
    tokenizer = encoder.tokenizer
    return written(tokenizer, answers, request, record.place, record.prompt, record.answer)


def _curves(recalls: dict[str, list[float]], threshold: float, seed: int) -> dict[str, Figure]:
    """Both curves, from (samples,) recalls per record."""
    count = len(next(iter(recalls.values())))
    leaking = {place: sum(r >= threshold for r in found) for place, found in recalls.items()}
    figures = {}
    for k in range(1, count + 1):
        figures[f"leak@{k}"] = mean_figure(
            {place: leak_at_k(count, found, k) for place, found in leaking.items()},
            unit="probability",
            target="reference",
            note=f"an answer leaks from a ROUGE-L recall of {threshold:g} on",
            seed=seed,
        )
    for k in range(1, count + 1):
        figures[f"rouge_l@{k}"] = mean_figure(
            {place: best_of_k(found, k) for place, found in recalls.items()},
            unit="recall",
            target="reference",
            seed=seed,
        )
    return figures
