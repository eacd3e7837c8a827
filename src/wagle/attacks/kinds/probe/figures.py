"""What a probe says about a model: how well each block's states give the labels away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wagle.attacks.kinds.probe.classifier import Floats, Ints, Split, held_out_logits
from wagle.attacks.kinds.probe.reading import (
    CHOICE,
    MEMBERSHIP,
    READINGS,
    Reading,
    Sources,
    shuffled,
)
from wagle.attacks.parts import question_contexts
from wagle.attacks.shapes import SHUFFLED
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers
from wagle.evaluation.figures import Figure, Measured, Task, mean_figure
from wagle.metrics.statistics import AUC_REPLICATES, percentiles
from wagle.system.errors import WagleError, choose


def read_states(
    encoder: Encoder,
    forget: Sequence[Record],
    holdout: Sequence[Record],
    *,
    groups: Mapping[str, str] | None = None,
    readings: Sequence[str] | None = None,
    seed: int = 0,
) -> Task:
    """Read what the hidden states reveal about the records to forget.

    The figures of the set ``forget_or_holdout`` are ``auc_block_0`` and so on, ``auc_maximum`` over
    the blocks, and ``auc_maximum_shuffled``, the same for meaningless labels; those of the set
    ``choice`` are accuracies (``accuracy_block_0``).

    Args:
        encoder: makes tokens of records.
        forget: records to be forgotten, questions or chats; at least 3 groups.
        holdout: records of the same kind, never trained on; at least 3 groups. The closer they are
            to the forget records, the more an AUC above one half means.
        groups: the name of each record's author or document, by place; None: every record is its
            own group.
        readings: names in READINGS; None: both, ``choice`` only if a forget record has wrong
            answers.
        seed: for the folds, the order of the choices, the shuffle and the intervals.

    Raises:
        WagleError: there are too few records or groups; a record is not a question or has no group;
            records have different numbers of wrong answers; a reading is unknown, or there is none;
            scikit-learn is missing.
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
    controls = [shuffled(reading, seed) for reading in asked]

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


def _figures(reading: Reading, control: Reading, answers: Answers, seed: int) -> dict[str, Figure]:
    states = _states(reading, answers)
    blocks = [_block(reading, block, seed) for block in states]
    control_maximum = _maximum([_block(control, block, seed) for block in states])
    kind = "accuracy" if reading.name == CHOICE else "auc"
    return {
        **{f"{kind}_block_{number}": figure for number, figure in enumerate(blocks)},
        f"{kind}_maximum": _maximum(blocks),
        f"{kind}_maximum{SHUFFLED}": replace(
            control_maximum, target=None, note="of shuffled labels"
        ),
    }


def _states(reading: Reading, answers: Answers) -> Floats:
    """(blocks, n, width) float64."""
    found = [answers.states(request)[:, 0].double() for request in reading.requests]
    for place, states in zip(reading.places, found, strict=True):
        if not states.isfinite().all():
            raise WagleError(
                f"the hidden states of {place} are not finite; evaluate the model in float32"
            )
    return np.stack([states.numpy() for states in found], axis=1)


def _block(reading: Reading, states: Floats, seed: int) -> Figure:
    """How well the label can be read from (n, width) states."""
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
    scores: Floats, labels: Ints, groups: Sequence[str], splits: Sequence[Split], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The share of pairs, one record of each label, in the right order, and its interval.

    Ties count half. Only records of one fold make pairs, as the scores of two folds come from two
    classifiers. For the interval, the groups of each label are drawn separately, over all folds,
    and the classifiers stay the same; draws that make no pair are left out. The draws depend only
    on seed, labels and groups, so those of two models are paired.

    Args:
        scores: (n,), larger where label 1 is likelier.
        labels: (n,) of 0 and 1.
        groups: (n,).
        splits: folds whose test parts hold every record once.
        seed: for the draws.

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


def _drawn(groups: NDArray[np.str_], generator: np.random.Generator) -> Floats:
    """How often each of n records is drawn, (replicates, n), drawing whole groups."""
    homes = np.unique(groups, return_inverse=True)[1]
    count = int(homes.max()) + 1
    times = generator.multinomial(count, np.full(count, 1 / count), AUC_REPLICATES)
    return times[:, homes].astype(np.float64)


def _maximum(blocks: Sequence[Figure]) -> Figure:
    numbers = [figure.number for figure in blocks]
    place = numbers.index(max(numbers))
    return replace(
        blocks[place],
        interval=None,  # it would hold for one fixed block, but the best is chosen
        interval_method="none: a maximum over blocks",
        per_record={},
        note=f"block {place}, the first that has it",
        count=blocks[place].n,
    )
