"""The classifier of probes, and the folds that keep records of one group on one side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wagle.system.errors import WagleError

FOLDS = 5  # outer and inner; fewer if a label is in fewer groups
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C, the strongest penalty first

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Parts = list[tuple[Ints, Ints]]  # training and test part of every fold, as indices


class Split(NamedTuple):
    """A fold: indices of records; ``inner`` are folds of the training part, as indices into it."""

    train: Ints
    test: Ints
    inner: _Parts


def make_splits(name: str, labels: Ints, groups: Sequence[str], seed: int) -> list[Split]:
    """Make folds, and folds of their training parts.

    Args:
        name: the reading's name, for messages.
        labels: (n,); every training part has all of them.
        groups: (n,).
        seed: for the draw.

    Raises:
        WagleError: a label is in too few groups.
    """
    homes = np.unique(np.asarray(groups), return_inverse=True)[1]
    return [
        Split(train, test, _folds(name, labels[train], homes[train], seed))
        for train, test in _folds(name, labels, homes, seed)
    ]


def _folds(name: str, labels: Ints, groups: Ints, seed: int) -> _Parts:
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


def held_out_logits(states: Floats, labels: Ints, splits: Sequence[Split]) -> Floats:
    """What a classifier says about records when it has seen neither them nor others of their group.

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


def standardised(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Standardise both parts by the training part, and make them no wider than it has records.

    An L2 penalty is invariant to rotation, and the weights of a classifier lie in the span of its
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


def _logits(model: Any, data: Floats) -> Floats:
    found: Floats = data @ model.coef_.T + model.intercept_  # for two labels, only the second's
    return found if found.shape[1] > 1 else np.hstack([np.zeros_like(found), found])


def _penalty(data: Floats, labels: Ints, folds: _Parts) -> float:
    """The C under which held-out labels are likeliest; among equals, the strongest penalty."""
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
