"""Probes: is what a model does not say still written in its hidden states?

A linear classifier reads the residual stream after each block at the last token of a prompt, before
anything is answered. It is asked two things:

- ``forget_or_holdout``: is this question one of those to forget, or one of the same kind that was
  never trained on?
- ``choice``: which of the lettered answers in the prompt is the right one?

It is a logistic regression with an L2 penalty on states that are standardised on the training part.
Records of one group (an author, a document) are never on both sides of a fold; the penalty is
chosen inside the training part. The largest of many figures lies above chance even where there is
nothing to read, so the same maximum stands beside it for shuffled labels.

Source: the linear probes of RMU's paper, Li et al. 2024, arXiv 2403.03218; this protocol is wagle's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wagle.attacks.sampling import question_contexts
from wagle.data.draws import order
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, HiddenStates
from wagle.evaluation.figures import Figure, Measured, Task, mean_figure
from wagle.metrics.statistics import AUC_REPLICATES, percentiles
from wagle.system.errors import WagleError, choose

MEMBERSHIP, CHOICE = "forget_or_holdout", "choice"
SHUFFLED = "_shuffled"  # ends the name of a figure of labels that mean nothing
FOLDS = 5  # outer and inner, or as many as the label in fewest groups has of them
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C, the strongest penalty first

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_Parts = list[tuple[_Ints, _Ints]]  # training and test part of every fold, as indices


def probe(
    encoder: Encoder,
    forget: Sequence[Record],
    holdout: Sequence[Record],
    *,
    groups: Mapping[str, str] | None = None,
    readings: Sequence[str] | None = None,
    seed: int = 0,
) -> Task:
    """Read what the hidden states tell of the records to forget.

    The figures of the set ``forget_or_holdout`` are ``auc_block_0`` and so on, ``auc_maximum`` over
    the blocks, and ``auc_maximum_shuffled``, the same for labels that mean nothing; those of the set
    ``choice`` are accuracies (``accuracy_block_0``).

    Args:
        encoder: makes tokens of records.
        forget: to be forgotten, questions or chats; at least 3 groups of them.
        holdout: of the same kind, never trained on; at least 3 groups. The closer they are to the
            forget records, the more an AUC above one half means.
        groups: the name of each record's author or document, by place; None: every record is its
            own group.
        readings: names in READINGS; None: both, ``choice`` only where a forget record has wrong
            answers.
        seed: of the folds, the order of the choices, the shuffle and the intervals.

    Raises:
        WagleError: too few records or groups; a record that is no question or has no group; other
            numbers of wrong answers; an unknown reading, or none; scikit-learn is missing.
    """
    _need_library()
    if readings is None:
        wrong = any(record.perturbed_answers for record in forget)
        readings = [MEMBERSHIP, CHOICE] if wrong else [MEMBERSHIP]
    if not readings:
        raise WagleError(f"readings is empty; name some of {', '.join(READINGS)}")
    contexts = question_contexts(encoder, forget, "probe")
    contexts += question_contexts(encoder, holdout, "probe")
    sources = Sources(encoder, forget, holdout, contexts, groups, seed)
    asked = [choose(READINGS, name, "reading")(sources) for name in readings]
    controls = [_shuffled(reading, seed) for reading in asked]

    def measure(answers: Answers) -> Measured:
        pairs = zip(asked, controls, strict=True)
        return Measured({r.name: _figures(r, control, answers, seed) for r, control in pairs})

    return Task(
        [request for reading in asked for request in reading.requests],
        measure,
        data={"forget": len(forget), "holdout": len(holdout), "readings": list(readings)},
    )


def _need_library() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise WagleError("probes need scikit-learn: pip install 'wagle[eval]'") from None


# ---------------------------------------------------------------------------------------------
# What is asked


class Sources(NamedTuple):
    """What readings are made of: the arguments of ``probe``, the contexts of both sets."""

    encoder: Encoder
    forget: Sequence[Record]
    holdout: Sequence[Record]
    contexts: Sequence[tuple[int, ...]]
    groups: Mapping[str, str] | None
    seed: int


class Split(NamedTuple):
    """A fold: indices of records; ``inner`` are folds of the training part, indices into it."""

    train: _Ints
    test: _Ints
    inner: _Parts


@dataclass(frozen=True)
class Reading:
    """What a classifier shall read in n records' states.

    Attributes:
        name: in READINGS.
        requests: (n,) each for the state at the last token of a prompt.
        places: (n,) of the records.
        groups: (n,) records of one group stay on one side of a fold.
        labels: (n,) int64, 0 to K - 1.
        splits: folds whose test parts hold every record once.
    """

    name: str
    requests: Sequence[HiddenStates]
    places: Sequence[str]
    groups: Sequence[str]
    labels: _Ints
    splits: Sequence[Split]


def _membership(sources: Sources) -> Reading:
    both = [*sources.forget, *sources.holdout]
    labels = np.repeat([1, 0], [len(sources.forget), len(sources.holdout)])
    return _reading(MEMBERSHIP, both, sources.contexts, labels, sources)


def _choice(sources: Sources) -> Reading:
    """The right answer stands behind every letter equally often, in an order of the seed."""
    records, encoder = sources.forget, sources.encoder
    count = len(records[0].perturbed_answers)
    for record in records:
        if len(record.perturbed_answers) != count or not count:
            raise WagleError(
                f"the reading {CHOICE} needs equally many perturbed_answers of every record: "
                f"{record.place} has {len(record.perturbed_answers)}, {records[0].place} {count}; "
                f"mend them, or leave {CHOICE} out of readings"
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
    labels: _Ints,
    sources: Sources,
) -> Reading:
    named = sources.groups
    if len({record.place for record in records}) < len(records):
        raise WagleError("two records of a probe have one place; read the sets under other names")
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


def _shuffled(reading: Reading, seed: int) -> Reading:
    """The control: the same states, labels that mean nothing, and folds that suit them."""
    labels = shuffle_labels(reading.labels, reading.groups, seed)
    splits = make_splits(reading.name, labels, reading.groups, seed)
    return replace(reading, labels=labels, splits=splits)


def shuffle_labels(labels: _Ints, groups: Sequence[str], seed: int) -> _Ints:
    """Deal the labels out anew.

    Where every group has one label, whole groups trade theirs, so that records of one group still
    share it; else records do.

    Args:
        labels: (n,).
        groups: (n,).
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    own = dict(zip(groups, labels.tolist(), strict=True))
    if any(own[g] != label for g, label in zip(groups, labels.tolist(), strict=True)):
        return generator.permutation(labels)
    new = dict(zip(own, generator.permutation(list(own.values())).tolist(), strict=True))
    return np.asarray([new[group] for group in groups], dtype=np.int64)


def make_splits(name: str, labels: _Ints, groups: Sequence[str], seed: int) -> list[Split]:
    """Folds, and folds of their training parts.

    Args:
        name: of the reading, for messages.
        labels: (n,); every training part has all of them.
        groups: (n,).
        seed: of the draw.

    Raises:
        WagleError: a label is in too few groups.
    """
    homes = np.unique(np.asarray(groups), return_inverse=True)[1]
    return [
        Split(train, test, _folds(name, labels[train], homes[train], seed))
        for train, test in _folds(name, labels, homes, seed)
    ]


def _folds(name: str, labels: _Ints, groups: _Ints, seed: int) -> _Parts:
    from sklearn.model_selection import StratifiedGroupKFold

    wanted = set(labels.tolist())
    count = min(FOLDS, *(len(np.unique(groups[labels == label])) for label in wanted))
    parts: _Parts = []
    if count > 1:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        parts = list(splitter.split(np.zeros(len(labels)), labels, groups))
    if not parts or any(set(labels[train].tolist()) != wanted for train, _ in parts):
        raise WagleError(
            f"the reading {name} needs at least 3 groups of records for each of its labels; give "
            "more records or smaller groups, or leave it out of readings"
        )
    return parts


# ---------------------------------------------------------------------------------------------
# The classifier


def held_out_logits(states: _Floats, labels: _Ints, splits: Sequence[Split]) -> _Floats:
    """What a classifier says of records that it has not seen, nor any other of their group.

    Args:
        states: (n, width) of one block.
        labels: (n,) int64, 0 to K - 1.
        splits: folds whose test parts hold every record once.

    Returns:
        (n, K) logits; those of different folds come from different classifiers.
    """
    from sklearn import config_context

    logits = np.empty((len(labels), int(labels.max()) + 1))
    with config_context(assume_finite=True, skip_parameter_validation=True):  # thousands of fits
        for split in splits:
            train, test = standardised(states[split.train], states[split.test])
            known = labels[split.train]
            model = _classifier(_penalty(train, known, split.inner)).fit(train, known)
            logits[split.test] = _logits(model, test)
    return logits


def standardised(train: _Floats, test: _Floats) -> tuple[_Floats, _Floats]:
    """Both parts by the mean and the deviation of the first, and not wider than it has records.

    An L2 penalty does not see a rotation, and the weights of a classifier lie in the span of its
    training records: so the coordinates in that span give the same logits, whatever the width.

    Args:
        train: (n, width).
        test: (m, width).

    Returns:
        (n, min(n, width)) and (m, min(n, width)).
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    if train.shape[1] <= train.shape[0]:
        return train, test
    span = np.linalg.qr(train.T)[0]  # (width, n), orthonormal
    return train @ span, test @ span


def _classifier(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    # States are strongly correlated: newton-cg takes few steps on them, lbfgs hundreds.
    return LogisticRegression(C=strength, solver="newton-cg", max_iter=1000, warm_start=True)


def _logits(model: Any, data: _Floats) -> _Floats:
    found: _Floats = data @ model.coef_.T + model.intercept_  # of two labels, only the second's
    return found if found.shape[1] > 1 else np.hstack([np.zeros_like(found), found])


def _penalty(data: _Floats, labels: _Ints, folds: _Parts) -> float:
    """The C under which held-out labels are likeliest; the strongest penalty of equals."""
    from scipy.special import log_softmax

    losses = dict.fromkeys(PENALTIES, 0.0)
    for train, test in folds:
        model = _classifier(PENALTIES[0])
        for strength in PENALTIES:  # each starts where the one before ended
            model.C = strength  # set_params looks its signature up, which takes as long as the fit
            model.fit(data[train], labels[train])
            likely = log_softmax(_logits(model, data[test]), axis=1)
            losses[strength] -= float(likely[np.arange(len(test)), labels[test]].sum())
    return min(losses, key=losses.__getitem__)


# ---------------------------------------------------------------------------------------------
# Figures


def _figures(reading: Reading, control: Reading, answers: Answers, seed: int) -> dict[str, Figure]:
    states = _states(reading, answers)
    blocks = [_block(reading, block, seed) for block in states]
    shuffled = _maximum([_block(control, block, seed) for block in states])
    kind = "accuracy" if reading.name == CHOICE else "auc"
    return {
        **{f"{kind}_block_{number}": figure for number, figure in enumerate(blocks)},
        f"{kind}_maximum": _maximum(blocks),
        f"{kind}_maximum{SHUFFLED}": replace(shuffled, target=None, note="of shuffled labels"),
    }


def _states(reading: Reading, answers: Answers) -> _Floats:
    """(blocks, n, width) float64."""
    found = [answers.states(request)[:, 0].double() for request in reading.requests]
    for place, states in zip(reading.places, found, strict=True):
        if not states.isfinite().all():
            raise WagleError(
                f"the hidden states of {place} are not finite; evaluate the model in float32"
            )
    return np.stack([states.numpy() for states in found], axis=1)


def _block(reading: Reading, states: _Floats, seed: int) -> Figure:
    """How well the label can be read in (n, width) states."""
    logits = held_out_logits(states, reading.labels, reading.splits)
    if reading.name == CHOICE:
        right = (logits.argmax(axis=1) == reading.labels).astype(float).tolist()
        rows = dict(zip(reading.places, right, strict=True))
        return mean_figure(rows, unit="share of records", target="reference", share=True)
    value, interval = fold_auc(
        logits[:, 1] - logits[:, 0], reading.labels, reading.groups, reading.splits, seed
    )
    return Figure(
        value,
        interval,
        f"bootstrap 95 % over groups of records, {AUC_REPLICATES} replicates",
        unit="AUC",
        target="reference",
        count=len(reading.labels),
    )


def fold_auc(
    scores: _Floats, labels: _Ints, groups: Sequence[str], splits: Sequence[Split], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The share of pairs, one record of each label, that are ordered rightly, and its interval.

    Ties count half. Only records of one fold make pairs: the scores of two folds are of two
    classifiers. For the interval the groups of each label are drawn apart, over all folds, and the
    classifiers stay what they are; draws that make no pair are left out. The draws depend on seed,
    labels and groups alone, so those of two models are paired.

    Args:
        scores: (n,), larger where label 1 is likelier.
        labels: (n,) of 0 and 1.
        groups: (n,).
        splits: folds whose test parts hold every record once.
        seed: of the draws.

    Raises:
        WagleError: no fold has records of both labels.
    """
    fold, names = np.empty(len(labels), dtype=np.int64), np.asarray(groups)
    for number, split in enumerate(splits):
        fold[split.test] = number
    one, other = (np.flatnonzero(labels == label) for label in (1, 0))
    gap = scores[one][:, None] - scores[other]  # (n of 1, n of 0), as all that follows
    pairs = (fold[one][:, None] == fold[other]).astype(np.float64)
    right = pairs * ((gap > 0) + (gap == 0) / 2)
    if not pairs.any():
        raise WagleError("no fold of the probe has records of both sets; give smaller groups")
    generator = np.random.default_rng(seed)
    drawn, against = (_drawn(names[side], generator) for side in (one, other))
    counts = ((drawn @ pairs) * against).sum(axis=1)
    totals = ((drawn @ right) * against).sum(axis=1)
    some = counts > 0
    return float(right.sum() / pairs.sum()), percentiles(totals[some] / counts[some])


def _drawn(groups: NDArray[np.str_], generator: np.random.Generator) -> _Floats:
    """How often each of n records is drawn, (replicates, n), where whole groups are drawn."""
    homes = np.unique(groups, return_inverse=True)[1]
    count = int(homes.max()) + 1
    times = generator.multinomial(count, np.full(count, 1 / count), AUC_REPLICATES)
    return times[:, homes].astype(np.float64)


def _maximum(blocks: Sequence[Figure]) -> Figure:
    numbers = [figure.number for figure in blocks]
    place = numbers.index(max(numbers))
    return replace(
        blocks[place],
        interval=None,  # which would be of one block, and the best is chosen
        interval_method="none: a maximum over blocks",
        per_record={},
        note=f"block {place}, the first that has it",
        count=blocks[place].n,
    )


READINGS: dict[str, Callable[[Sources], Reading]] = {MEMBERSHIP: _membership, CHOICE: _choice}
