"""The metrics of one record, of all families, in the order of the tables."""

from __future__ import annotations

from wagle.metrics.likelihood import LIKELIHOODS
from wagle.metrics.likelihood import NATS as NATS
from wagle.metrics.memorization import MEMORIZATION
from wagle.metrics.metric import Metric
from wagle.metrics.text import TEXTS

_FAMILIES = {**LIKELIHOODS, **MEMORIZATION, **TEXTS}
_FIRST = (  # first in tables; the others follow in the order of their families
    "probability",
    "paraphrased",
    "rouge_l",
    "know",
    "accuracy",
    "extraction_strength",
    "exact_memorization",
    "nll",
    "repetition",
    "token_entropy",
    "empty",
    "at_limit",
)
WRITTEN = ("empty", "at_limit")  # the METRICS that say whether an answer was written at all

METRICS: dict[str, Metric] = {
    name: _FAMILIES[name] for name in dict.fromkeys((*_FIRST, *_FAMILIES))
}

JUDGED: dict[str, Metric] = {  # by classifiers, if any are named
    "fluency": Metric("probability of clean language", direction="higher"),
    "entailment": Metric("share of answers", share=True),
}

ALL: dict[str, Metric] = {**METRICS, **JUDGED}

PROBES = (  # what a verdict depends on, on the forget set
    "probability",
    "paraphrased",
    "extraction_strength",
    "exact_memorization",
    "rouge_l",
    "know",
)
