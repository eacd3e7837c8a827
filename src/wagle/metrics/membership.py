"""Membership: does the model still treat a text as one that it was trained on?

An attack turns what is known about a text into a number ``u``, its unfamiliarity: the larger, the
less likely a member. How well ``u`` separates texts to forget from texts never seen is an AUC; how
far that is from a retrained model's AUC is the privacy leakage.
To add an attack, write a function here, its entry in MEMBERSHIP_ATTACKS, and a test beside them.

M is the mean NLL, in nats, of the scored tokens: for a text all after the first, for an answer all
but the EOS (which OpenUnlearning's ``loss``, ``zlib`` and ``reference`` count).
"""

from __future__ import annotations

import math
import re
import zlib as compression
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wagle.metrics.statistics import auc_interval
from wagle.system.errors import WagleError

HIGHEST_REFERENCE = 0.9  # AUC of a reference: above this, it knows the forget set itself
_SMALLEST_VARIANCE = 1e-6  # of log-probabilities, in nats squared
_SMALLEST_NLL = 1e-9  # nats; the floor for a mean NLL used as a divisor


@dataclass(frozen=True)
class Trace:
    """What is known about one text under a model; an attack that needs more raises an error.

    Attributes:
        place: the place of the text's record, for messages.
        token_nll: (n,) float64, the NLL of each scored token in nats.
        ending: the NLL of the EOS after these, if the attacks on the mean count it (OpenUnlearning).
        moments: (n, 2) float64, mean and variance of the log-probability at each scored position.
        lower: M of the lower-cased text.
        reference: M under a model that never learned the text.
        size: the compressed size of the text in bytes, ``zlib_size``.
        gradient: the norm of dM/d(weights).

    Raises:
        WagleError: no scored token, or a number that is not finite.
    """

    place: str
    token_nll: Tensor
    moments: Tensor | None = None
    lower: float | None = None
    reference: float | None = None
    size: int | None = None
    gradient: float | None = None
    ending: float | None = None

    def __post_init__(self) -> None:
        if not len(self.token_nll):
            raise WagleError(f"{self.place} has no scored token; membership needs at least one")
        for name in ("token_nll", "moments", "lower", "reference", "gradient", "ending"):
            value = getattr(self, name)
            if value is not None and not bool(torch.isfinite(torch.as_tensor(value)).all()):
                raise WagleError(
                    f"{self.place}: {name} is not finite; the model's answers cannot be used"
                )

    @property
    def mean(self) -> float:
        """M, summed in float64."""
        return math.fsum(self.token_nll.tolist()) / len(self.token_nll)

    @property
    def scored(self) -> tuple[float, int]:
        """M of all that the attacks on the mean count, and of how many tokens."""
        nll = self.token_nll.tolist() + ([] if self.ending is None else [self.ending])
        return math.fsum(nll) / len(nll), len(nll)

    def need(self, field: str, attack: str) -> float:
        """The value of a field that ``attack`` requires."""
        value = getattr(self, field)
        if value is None:
            raise WagleError(
                f"{self.place}: the attack {attack} needs {field}; provide it or drop the attack"
            )
        return float(value)


def zlib_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8 after zlib at level 6; zlib builds differ slightly."""
    return len(compression.compress(text.encode("utf-8"), 6))


def share_of(k: float | str, count: int) -> int:
    """``floor(k * count)`` with k taken as the decimal written: 0.29 of 100 is 29, not 28."""
    return int(Decimal(str(k)) * count)


def check_share(k: float | str) -> None:
    """Refuse a k that is not a share of the tokens, above 0 and at most 1."""
    if not 0 < Decimal(str(k)) <= 1:
        raise WagleError(f"k is {k}; it must be a share of the tokens, above 0 and at most 1")


# ---------------------------------------------------------------------------------------------
# Attacks


def loss(trace: Trace) -> float:
    """``M``.

    Source: Yeom et al. 2018, arXiv 1709.01604.
    """
    return trace.scored[0]


def reference(trace: Trace) -> float:
    """``M - M_ref``: text that every model finds hard to predict does not count.

    Source: Carlini et al. 2021, arXiv 2012.07805, as a difference.
    """
    return trace.scored[0] - trace.need("reference", "reference")


def zlib(trace: Trace, *, summed: bool = False) -> float:
    """``M / z``, z the bytes of the compressed text; ``summed``: ``S / z``, S the summed NLL.

    M is already per token, so the length of a text counts twice and makes it look familiar; S / z
    avoids that.

    Source: Carlini et al. 2021, arXiv 2012.07805; M as MUSE and OpenUnlearning have it.
    """
    mean, tokens = trace.scored
    return mean * (tokens if summed else 1) / trace.need("size", "zlib")


def lower(trace: Trace) -> float:
    """``M / M(lower-cased text)``; a mean NLL below 1e-9 nats counts as 1e-9 in the denominator.

    Source: Carlini et al. 2021, arXiv 2012.07805, as MUSE has it.
    """
    return trace.mean / max(trace.need("lower", "lower"), _SMALLEST_NLL)


def min_k(trace: Trace, *, k: float | str = 0.4) -> float:
    """``-mean`` of the ``max(1, floor(k n))`` lowest log-probabilities of tokens.

    Args:
        trace: a trace with n scored tokens.
        k: a share of the tokens, 0 < k <= 1, exact as a decimal.

    Source: Shi et al. 2024, arXiv 2310.16789.
    """
    return -_mean_of_lowest(-trace.token_nll, k)


def min_k_plus_plus(trace: Trace, *, k: float | str = 0.4) -> float:
    """``-mean`` of the ``max(1, floor(k n))`` lowest ``(log p - mean) / sqrt(max(var, 1e-6))``.

    Args:
        trace: a trace with n scored tokens and their moments.
        k: a share of the tokens, 0 < k <= 1, exact as a decimal.

    Source: Zhang et al. 2024, arXiv 2404.02936; the smallest variance as in OpenUnlearning.
    """
    if trace.moments is None:
        raise WagleError(f"{trace.place}: the attack min_k++ needs moments; request them")
    mean, variance = trace.moments.unbind(dim=1)
    spread = variance.clamp(min=_SMALLEST_VARIANCE).sqrt()
    return -_mean_of_lowest((-trace.token_nll - mean) / spread, k)


def gradnorm(trace: Trace) -> float:
    """The norm of dM/d(weights) as measured (over all weights as one vector, or a mean)."""
    return trace.need("gradient", "gradnorm")


def _mean_of_lowest(values: Tensor, k: float | str) -> float:
    check_share(k)
    count = max(1, share_of(k, len(values)))
    return math.fsum(values.sort().values[:count].tolist()) / count


MEMBERSHIP_ATTACKS: dict[str, Callable[..., float]] = {
    "loss": loss,
    "reference": reference,
    "zlib": zlib,
    "zlib_sum": partial(zlib, summed=True),
    "lower": lower,
    "min_k": min_k,
    "min_k++": min_k_plus_plus,
    "gradnorm": gradnorm,
}


# ---------------------------------------------------------------------------------------------
# From the scores of two sets to a single figure


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """``P(u_holdout > u_forget) + P(=) / 2``: 1 is fully memorised; the target is a retrained one.

    MUSE's keys ``forget_holdout_*`` hold 1 minus this.

    Args:
        forget: (n,) u of the texts to forget.
        holdout: (m,) u of texts of the same kind that were never trained on.

    Raises:
        WagleError: an empty set, or a number that is not finite.
    """
    from scipy.stats import rankdata

    members, others = _checked(forget, holdout)
    ranks = rankdata(np.concatenate([others, members]))  # equal values share their mean rank
    n = len(others)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(members)))


def tpr_at_fpr(
    forget: Sequence[float], holdout: Sequence[float], fpr: float | str, *, forgotten: bool = False
) -> float:
    """The share of forget texts that are flagged while at most ``fpr`` of the holdout texts are.

    Args:
        forget: (n,) u of the texts to forget.
        holdout: (m,) u of the holdout texts.
        fpr: 0 <= fpr < 1, exact as a decimal.
        forgotten: flag texts that are less familiar than the holdout texts, as after too much
            unlearning, rather than more.
    """
    members, others = _checked(forget, holdout)
    if forgotten:
        members, others = -members, -others
    edge = np.sort(others)[share_of(fpr, len(others))]
    return float((members < edge).mean())


def _checked(forget: Sequence[float], holdout: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    sets = np.asarray(forget, np.float64), np.asarray(holdout, np.float64)
    for name, values in zip(("forget", "holdout"), sets, strict=True):
        if not len(values) or not np.isfinite(values).all():
            raise WagleError(f"membership needs finite scores for at least one {name} text")
    return sets


def privleak(value: float, retrained: float) -> float | None:
    """``100 (A_r - A) / (1 - A_r)``: 0 is ideal, -100 fully memorised, above 0 over-unlearned.

    Args:
        value: A, the model's AUC.
        retrained: A_r, that of a model that never learned the forget set.

    Returns:
        The leakage; None if A_r is 1.

    Source: Shi et al. 2024 (MUSE), arXiv 2407.06460, privacy leakage, with 1 - A in place of A.
    """
    return None if retrained == 1 else 100 * (retrained - value) / (1 - retrained)


def rel_diff(value: float, retrained: float) -> float | None:
    """``100 (A - A_r) / A_r`` (OpenUnlearning); None if A_r is 0."""
    return None if retrained == 0 else 100 * (value - retrained) / retrained


def privacy(value: float, retrained: float) -> float:
    """``1 - |A - A_r| / max(A_r, 1 - A_r)``: 0 to 1, 1 is ideal."""
    return 1 - abs(value - retrained) / max(retrained, 1 - retrained)


def check_reference(retrained: float, what: str = "the reference") -> None:
    """Refuse a reference whose AUC shows that it was trained on the forget set.

    Raises:
        WagleError: an AUC above 0.9.
    """
    if retrained > HIGHEST_REFERENCE:
        raise WagleError(
            f"{what} knows the forget set (AUC {retrained:.4g}, above {HIGHEST_REFERENCE}), so "
            "leakage cannot be measured; give a model that never learned it"
        )


class Separation(NamedTuple):
    """How well two sets of texts can be told apart without the model: AUC and 95 % interval.

    Both are None if no text contains a word to go by.
    """

    auc: float | None
    interval: tuple[float, float] | None

    @property
    def warning(self) -> str | None:
        """A warning about attacks on these sets if chance does not explain the AUC, else None."""
        if self.interval is None:
            return "not checked whether words alone tell the sets apart: no text has a word"
        if self.interval[0] <= 0.5:
            return None
        return (
            f"words alone tell the forget texts from the holdout texts (AUC {self.auc:.2f} without "
            "the model), so membership attacks measure topic or date too; compare with a retrained "
            "model only"
        )


def bag_of_words(forget: Sequence[str], holdout: Sequence[str], seed: int = 0) -> Separation:
    """Tell two sets of texts apart by the words they contain, without the model.

    The scores come from a logistic regression, for texts left out of its training, in at most five
    folds.

    Args:
        forget: texts; at least two.
        holdout: texts; at least two.
        seed: the seed for the folds and the interval.

    Raises:
        WagleError: too few texts; scikit-learn is missing.
    """
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    except ImportError:
        raise WagleError(
            "the bag-of-words check needs scikit-learn: pip install 'wagle[eval]'"
        ) from None
    folds = min(5, len(forget), len(holdout))
    if folds < 2:
        raise WagleError("the bag-of-words check needs at least two texts in each set")
    texts = [*forget, *holdout]
    if not any(re.search(r"\w", text) for text in texts):
        return Separation(None, None)
    # a word that occurs only in left-out texts has weight 0, so all may share one vocabulary
    words = CountVectorizer(binary=True, token_pattern=r"\w+").fit_transform(texts)
    scores = cross_val_predict(
        LogisticRegression(max_iter=1000),
        words,
        [0] * len(forget) + [1] * len(holdout),
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        method="decision_function",
    ).tolist()
    members, others = scores[: len(forget)], scores[len(forget) :]
    return Separation(auc(members, others), auc_interval(others, members, seed))
