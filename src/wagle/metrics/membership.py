"""Membership: does the model still treat a text as one that it was trained on?

An attack makes of what is known of a text a number ``u``, its unfamiliarity: larger is less likely
a member. How well ``u`` tells texts to forget from texts that were never seen is an AUC, and how
far that is from a retrained model's is the privacy leakage.
To add an attack: a function here, its entry in MEMBERSHIP_ATTACKS, a test beside the others.

M is the mean NLL of a text's scored tokens in nats: of a text all after the first, of an answer all
without the EOS.
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

HIGHEST_REFERENCE = 0.9  # AUC of a reference: above it, it knows the forget set itself
_SMALLEST_VARIANCE = 1e-6  # of log-probabilities, in nats squared
_SMALLEST_NLL = 1e-9  # nats; what a mean NLL counts as where it is divided by


@dataclass(frozen=True)
class Trace:
    """What is known of one text under a model; an attack that needs more than there is refuses.

    Attributes:
        place: of the text's record, for messages.
        token_nll: (n,) float64, the NLL of each scored token in nats.
        moments: (n, 2) float64, mean and variance of the log-probability at each scored position.
        lower: M of the lower-cased text.
        reference: M under a model that never learned the text.
        size: bytes of the text compressed, ``zlib_size``.
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

    def __post_init__(self) -> None:
        if not len(self.token_nll):
            raise WagleError(f"{self.place} has no scored token; membership needs at least one")
        for name in ("token_nll", "moments", "lower", "reference", "gradient"):
            value = getattr(self, name)
            if value is not None and not bool(torch.isfinite(torch.as_tensor(value)).all()):
                raise WagleError(
                    f"{self.place}: {name} is not finite; the model's answers are not usable"
                )

    @property
    def mean(self) -> float:
        """M, summed in float64."""
        return math.fsum(self.token_nll.tolist()) / len(self.token_nll)

    def need(self, field: str, attack: str) -> float:
        """A number that ``attack`` cannot do without."""
        value = getattr(self, field)
        if value is None:
            raise WagleError(
                f"{self.place}: the attack {attack} needs {field}; give it or leave it"
            )
        return float(value)


def zlib_size(text: str) -> int:
    """Bytes of ``text`` in UTF-8 after zlib at level 6; other builds of zlib differ a little."""
    return len(compression.compress(text.encode("utf-8"), 6))


def share_of(k: float | str, count: int) -> int:
    """``floor(k * count)`` with k as the decimal that is written: 0.29 of 100 is 29, not 28."""
    return int(Decimal(str(k)) * count)


def check_share(k: float | str) -> None:
    """Refuse a k that is no share of the tokens: it is above 0 and at most 1."""
    if not 0 < Decimal(str(k)) <= 1:
        raise WagleError(f"k is {k}; it is a share of the tokens, above 0 and at most 1")


# ---------------------------------------------------------------------------------------------
# Attacks


def loss(trace: Trace) -> float:
    """``M``.

    Source: Yeom et al. 2018, arXiv 1709.01604.
    """
    return trace.mean


def reference(trace: Trace) -> float:
    """``M - M_ref``: what every model finds hard to predict does not count.

    Source: Carlini et al. 2021, arXiv 2012.07805, as a difference.
    """
    return trace.mean - trace.need("reference", "reference")


def zlib(trace: Trace, *, summed: bool = False) -> float:
    """``M / z``, z the bytes of the compressed text; ``summed``: ``S / z``, S the summed NLL.

    M is per token already, so that a long text looks familiar twice; S / z is free of that.

    Source: Carlini et al. 2021, arXiv 2012.07805; M as MUSE and OpenUnlearning have it.
    """
    tokens = len(trace.token_nll) if summed else 1
    return trace.mean * tokens / trace.need("size", "zlib")


def lower(trace: Trace) -> float:
    """``M / M(lower-cased text)``; a mean NLL below 1e-9 nats counts as 1e-9 below the line.

    Source: Carlini et al. 2021, arXiv 2012.07805, as MUSE has it.
    """
    return trace.mean / max(trace.need("lower", "lower"), _SMALLEST_NLL)


def min_k(trace: Trace, *, k: float | str = 0.4) -> float:
    """``-mean`` of the ``max(1, floor(k n))`` lowest log-probabilities of tokens.

    Args:
        trace: with n scored tokens.
        k: a share of the tokens, 0 < k <= 1, exact as a decimal.

    Source: Shi et al. 2024, arXiv 2310.16789.
    """
    return -_mean_of_lowest(-trace.token_nll, k)


def min_k_plus_plus(trace: Trace, *, k: float | str = 0.4) -> float:
    """``-mean`` of the ``max(1, floor(k n))`` lowest ``(log p - mean) / sqrt(max(var, 1e-6))``.

    Args:
        trace: with n scored tokens and their moments.
        k: a share of the tokens, 0 < k <= 1, exact as a decimal.

    Source: Zhang et al. 2024, arXiv 2404.02936; the smallest variance as in OpenUnlearning.
    """
    if trace.moments is None:
        raise WagleError(f"{trace.place}: the attack min_k++ needs moments; ask for them")
    mean, variance = trace.moments.unbind(dim=1)
    spread = variance.clamp(min=_SMALLEST_VARIANCE).sqrt()
    return -_mean_of_lowest((-trace.token_nll - mean) / spread, k)


def gradnorm(trace: Trace) -> float:
    """The norm of dM/d(weights), as it was measured (of all weights as one vector, or a mean)."""
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
# From the scores of two sets to a figure


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """``P(u_holdout > u_forget) + P(=) / 2``: 1 is fully memorised, a retrained model the target.

    MUSE's keys ``forget_holdout_*`` hold 1 minus this.

    Args:
        forget: (n,) u of the texts to forget.
        holdout: (m,) u of texts of the same kind that were never trained on.

    Raises:
        WagleError: a set without texts, or a number that is not finite.
    """
    from scipy.stats import rankdata

    members, others = _checked(forget, holdout)
    ranks = rankdata(np.concatenate([others, members]))  # equal values share their mean rank
    n = len(others)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(members)))


def tpr_at_fpr(
    forget: Sequence[float], holdout: Sequence[float], fpr: float | str, *, forgotten: bool = False
) -> float:
    """The share of the forget texts that are found while at most ``fpr`` of the holdout texts are.

    Args:
        forget: (n,) u of the texts to forget.
        holdout: (m,) u of the holdout texts.
        fpr: 0 <= fpr < 1, exact as a decimal.
        forgotten: find a text by its being less familiar than the holdout texts, as after too much
            unlearning, instead of more.
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
            raise WagleError(f"membership needs finite scores of at least one {name} text")
    return sets


def privleak(value: float, retrained: float) -> float | None:
    """``100 (A_r - A) / (1 - A_r)``: 0 is ideal, -100 fully memorised, above 0 over-unlearned.

    Args:
        value: A, the model's AUC.
        retrained: A_r, that of a model that never learned the forget set.

    Returns:
        The leakage; None where A_r is 1.

    Source: Shi et al. 2024 (MUSE), arXiv 2407.06460, privacy leakage, which has 1 - A for A.
    """
    return None if retrained == 1 else 100 * (retrained - value) / (1 - retrained)


def rel_diff(value: float, retrained: float) -> float | None:
    """``100 (A - A_r) / A_r`` (OpenUnlearning); None where A_r is 0."""
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
            f"{what} knows the forget set (AUC {retrained:.4g}, above {HIGHEST_REFERENCE}), so no "
            "leakage can be told; give a model that never learned it"
        )


class Separation(NamedTuple):
    """How well two sets of texts are told apart without the model: AUC and 95 % interval.

    Both are None where no text has a word to tell it by.
    """

    auc: float | None
    interval: tuple[float, float] | None

    @property
    def warning(self) -> str | None:
        """What to know of an attack on these sets, where chance does not explain the AUC."""
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
    """Tell two sets of texts apart by which words they hold, without the model.

    The scores are those of a logistic regression on texts left out of its training, in at most
    five folds.

    Args:
        forget: texts; at least two.
        holdout: texts; at least two.
        seed: of the folds and of the interval.

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
        raise WagleError("the bag-of-words check needs at least two texts of both sets")
    texts = [*forget, *holdout]
    if not any(re.search(r"\w", text) for text in texts):
        return Separation(None, None)
    # a word that only left-out texts hold has the weight 0, so all may share one vocabulary
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
