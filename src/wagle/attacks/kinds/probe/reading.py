"""What probes read: labels of records, from the states at the last token of their prompts.

A linear classifier reads the residual stream after each block at the last token of a prompt, before
anything is answered. It is asked two questions:

- ``forget_or_holdout``: is this question one of those to forget, or one of the same kind that was
  never trained on?
- ``choice``: which of the lettered answers in the prompt is the right one?

It is a logistic regression with an L2 penalty on states standardised on the training part. Records
of one group (an author, a document) are never on both sides of a fold; the penalty is chosen inside
the training part. The largest of many figures lies above chance even if there is nothing to read,
so the same maximum is reported for shuffled labels.

Source: the linear probes of RMU's paper, Li et al. 2024, arXiv 2403.03218; this protocol is wagle's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from wagle.attacks.kinds.probe.classifier import Ints, Split, make_splits
from wagle.data.draws import order
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import HiddenStates
from wagle.system.errors import WagleError

MEMBERSHIP, CHOICE = "forget_or_holdout", "choice"


class Sources(NamedTuple):
    """What readings are made from: the arguments of ``probe``, and the contexts of both sets."""

    encoder: Encoder
    forget: Sequence[Record]
    holdout: Sequence[Record]
    contexts: Sequence[tuple[int, ...]]
    groups: Mapping[str, str] | None
    seed: int


@dataclass(frozen=True)
class Reading:
    """What a classifier should read from n records' states.

    Attributes:
        name: a name in READINGS.
        requests: (n,) one each, for the state at the last token of a prompt.
        places: (n,) the records' places.
        groups: (n,) records of one group stay on one side of a fold.
        labels: (n,) int64, 0 to K - 1.
        splits: folds whose test parts hold every record once.
    """

    name: str
    requests: Sequence[HiddenStates]
    places: Sequence[str]
    groups: Sequence[str]
    labels: Ints
    splits: Sequence[Split]


def _membership(sources: Sources) -> Reading:
    both = [*sources.forget, *sources.holdout]
    labels = np.repeat([1, 0], [len(sources.forget), len(sources.holdout)])
    return _reading(MEMBERSHIP, both, sources.contexts, labels, sources)


def _choice(sources: Sources) -> Reading:
    """The right answer is behind every letter equally often, in an order drawn from the seed."""
    records, encoder = sources.forget, sources.encoder
    count = len(records[0].perturbed_answers)
    for record in records:
        if len(record.perturbed_answers) != count or not count:
            raise WagleError(
                f"the reading {CHOICE} needs equally many perturbed_answers for every record: "
                f"{record.place} has {len(record.perturbed_answers)}, {records[0].place} {count}; "
                f"fix them, or leave {CHOICE} out of readings"
            )
    dealt = order(sources.seed, "probe choice", [record.id for record in records])
    labels = np.empty(len(records), dtype=np.int64)
    labels[dealt] = np.arange(len(records)) % (count + 1)
    contexts = []
    for record, right in zip(records, labels.tolist(), strict=True):
        options = list(record.perturbed_answers)
        options.insert(right, record.answer)
        lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(options)]
        question = "\n".join([record.prompt, *lines, "Answer with one letter."])
        contexts.append(encoder.answer(record, question, "A").context)
    return _reading(CHOICE, records, contexts, labels, sources)


def _reading(
    name: str,
    records: Sequence[Record],
    contexts: Sequence[tuple[int, ...]],
    labels: Ints,
    sources: Sources,
) -> Reading:
    named = sources.groups
    if len({record.place for record in records}) < len(records):
        raise WagleError("two records of a probe share a place; read the sets under other names")
    for record in records:
        if named is not None and record.place not in named:
            raise WagleError(f"groups has no entry for {record.place}; name its author or document")
    groups = [r.place if named is None else named[r.place] for r in records]
    return Reading(
        name,
        [HiddenStates(context, (len(context) - 1,)) for context in contexts],
        [record.place for record in records],
        groups,
        labels,
        make_splits(name, labels, groups, sources.seed),
    )


def shuffled(reading: Reading, seed: int) -> Reading:
    """The control: the same states with meaningless labels, and folds that suit them."""
    labels = shuffle_labels(reading.labels, reading.groups, seed)
    splits = make_splits(reading.name, labels, reading.groups, seed)
    return replace(reading, labels=labels, splits=splits)


def shuffle_labels(labels: Ints, groups: Sequence[str], seed: int) -> Ints:
    """Deal the labels out afresh.

    If every group has one label, whole groups swap theirs, so that records of one group still share
    a label; otherwise records do.

    Args:
        labels: (n,).
        groups: (n,).
        seed: for the draw.
    """
    generator = np.random.default_rng(seed)
    own = dict(zip(groups, labels.tolist(), strict=True))
    if any(own[g] != label for g, label in zip(groups, labels.tolist(), strict=True)):
        return generator.permutation(labels)
    new = dict(zip(own, generator.permutation(list(own.values())).tolist(), strict=True))
    return np.asarray([new[group] for group in groups], dtype=np.int64)


READINGS: dict[str, Callable[[Sources], Reading]] = {MEMBERSHIP: _membership, CHOICE: _choice}
