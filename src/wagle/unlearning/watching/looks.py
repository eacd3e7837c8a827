"""Looks at a model during training: which records, and their figures. Nothing is generated.

The figures are those in ``rules.FIGURES``, computed on a few fixed records of each set in
training's own precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import harmonic_mean

import torch
from torch import nn

from wagle.data.batches import by_length, collate
from wagle.data.draws import subset
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.metrics.likelihood import log_truth_ratio, true_better
from wagle.metrics.memorization import exact_memorization, extraction_strength
from wagle.model.scoring import records_nll
from wagle.unlearning.original import EVAL_TOKENS

LOOKED = 64  # records of a set, at most


@dataclass(frozen=True)
class Options:
    """What the truth ratio of a question compares, as in an evaluation.

    Attributes:
        right: the right answer in other words; None: the answer itself.
        wrong: the wrong answers.
    """

    right: Tokens | None
    wrong: tuple[Tokens, ...]

    @property
    def tokens(self) -> list[Tokens]:
        """All that is scored in addition to the answer itself."""
        return [*([] if self.right is None else [self.right]), *self.wrong]


@dataclass(frozen=True)
class Looked:
    """The records that looks use.

    Attributes:
        sets: the records of ``forget`` and, if there is one, ``retain``.
        options: those of the retain records with wrong answers, by their place in ``sets``.
    """

    sets: Mapping[str, Sequence[Tokens]] = field(default_factory=dict)
    options: Mapping[int, Options] = field(default_factory=dict)

    @property
    def tokens(self) -> list[Tokens]:
        """All that is scored."""
        answers = [token for tokens in self.sets.values() for token in tokens]
        return answers + [token for option in self.options.values() for token in option.tokens]


def make_looked(
    encoder: Encoder,
    forget: Sequence[Record],
    retain: Sequence[Record],
    *,
    whole: bool,
    seed: int,
    wrong_answers: bool = True,
) -> Looked:
    """The records that looks use: at most 64 of each set, drawn by (seed, id).

    Args:
        encoder: turns records into tokens.
        forget: the records that must go.
        retain: the records to keep, or none.
        whole: use all forget records, as a reference's figures do.
        seed: of the draws.
        wrong_answers: include the wrong answers of retain records.
    """
    gone = encoder.encode(forget)
    sets = {"forget": gone if whole else sample(gone, LOOKED, seed)}
    if not retain:
        return Looked(sets)
    sets["retain"] = sample(encoder.encode(retain), LOOKED, seed)
    homes = {record.place: record for record in retain}
    options = {}
    for place, tokens in enumerate(sets["retain"]):
        record = homes[tokens.place]
        if wrong_answers and record.perturbed_answers:
            options[place] = _options(encoder, record)
    return Looked(sets, options)


def _options(encoder: Encoder, record: Record) -> Options:
    again, wrong = record.paraphrased_answer, record.perturbed_answers
    return Options(
        encoder.answer(record, record.prompt, again) if again else None,
        tuple(encoder.answer(record, record.prompt, answer) for answer in wrong),
    )


def sample(tokens: Sequence[Tokens], most: int, seed: int) -> list[Tokens]:
    """At most ``most`` records, drawn by (seed, id), in their own order."""
    return [tokens[i] for i in subset(seed, "check", [t.id for t in tokens], most)]


def look_at_set(
    model: nn.Module,
    name: str,
    tokens: Sequence[Tokens],
    precision: str = "float32",
    options: Mapping[int, Options] | None = None,
) -> dict[str, float]:
    """The figures of a set, as means over its records, from one forward pass over their answers.

    Args:
        model: in any mode; dropout is switched off.
        name: of the set.
        tokens: its records.
        precision: of the matrix products.
        options: for some of the records, by place; a question runs once for all of its answers.

    Returns:
        ``NAME.probability`` (``exp(-mean NLL)``), ``NAME.nll`` (nats), ``NAME.extraction_strength``
        and ``NAME.exact_memorization``, the last two without the EOS. With options also
        ``NAME.true_better``, over the records that have them, and ``NAME.utility_proxy``, the
            harmonic
        mean of that and the probability.
    """
    options = options or {}
    every = [*tokens, *(token for option in options.values() for token in option.tokens)]
    groups = _groups(tokens, options)
    batches = [collate([every[i] for i in group], group) for group in groups]
    found = records_nll(model, batches, len(every), precision)
    means = found.nll_mean.double()
    nll = means[: len(tokens)]
    said = [
        hits.tolist()[: len(hits) - token.closed] or hits.tolist()
        for hits, token in zip(found.hit.split(found.length.tolist()), tokens, strict=False)
    ]
    figures = {
        f"{name}.probability": float(torch.exp(-nll).mean()),
        f"{name}.nll": float(nll.mean()),
        f"{name}.extraction_strength": sum(map(extraction_strength, said)) / len(said),
        f"{name}.exact_memorization": sum(map(exact_memorization, said)) / len(said),
    }
    if options:
        better = _true_better(means.tolist(), len(tokens), options)
        figures[f"{name}.true_better"] = better
        figures[f"{name}.utility_proxy"] = harmonic_mean([better, figures[f"{name}.probability"]])
    return figures


def _groups(tokens: Sequence[Tokens], options: Mapping[int, Options]) -> list[list[int]]:
    """Which items are batched together, where all options come after the records.

    The answers to one question form a batch, so that their common beginning runs once.
    """
    lengths = [len(token.ids) for token in tokens]
    asked = [[place for place in range(len(tokens)) if place not in options]]
    for place, option in options.items():
        asked.append([place, *range(len(lengths), len(lengths) + len(option.tokens))])
        lengths += [len(token.ids) for token in option.tokens]
    return [
        [some[i] for i in group]
        for some in asked
        for group in by_length([lengths[i] for i in some], EVAL_TOKENS)
    ]


def _true_better(means: Sequence[float], first: int, options: Mapping[int, Options]) -> float:
    """The mean of ``max(0, 1 - R)``, from mean NLLs of records and, from ``first`` on, options."""
    values, rest = [], iter(means[first:])
    for place, option in options.items():
        right = means[place] if option.right is None else next(rest)
        values.append(true_better(log_truth_ratio(right, [*islice(rest, len(option.wrong))])))
    return math.fsum(values) / len(values)
