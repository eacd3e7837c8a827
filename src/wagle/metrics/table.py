"""The figures of the benchmark ``qa``, in the order of its tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a figure is.

    Attributes:
        unit: of its values.
        direction: ``higher``, ``lower`` or ``target`` is better where the model should know less.
        kept: the same where it should know as much as before.
        share: a share of records, whose interval is Wilson's.
    """

    unit: str
    direction: str = "target"
    kept: str = "higher"
    share: bool = False


NATS = "nats per token"
WRITTEN = ("empty", "at_limit")  # of METRICS, those that say whether an answer was written at all

METRICS: dict[str, Metric] = {
    "probability": Metric("probability per token"),
    "paraphrased": Metric("probability per token"),
    "rouge_l": Metric("recall"),
    "know": Metric("share"),
    "accuracy": Metric("share of records", share=True),
    "extraction_strength": Metric("share of the answer"),
    "exact_memorization": Metric("share of tokens"),
    "nll": Metric(NATS, kept="lower"),
    "repetition": Metric("share of 4-grams", direction="lower", kept="lower"),
    "token_entropy": Metric("share of the largest possible", direction="higher"),
    "empty": Metric("share of answers", direction="lower", kept="lower", share=True),
    "at_limit": Metric("share of answers", direction="lower", kept="lower", share=True),
}

JUDGED: dict[str, Metric] = {  # by classifiers, where they are named
    "fluency": Metric("probability of clean language", direction="higher"),
    "entailment": Metric("share of answers", share=True),
}

ALL: dict[str, Metric] = {**METRICS, **JUDGED}

PROBES = (  # what a verdict turns on, of the forget set
    "probability",
    "paraphrased",
    "extraction_strength",
    "exact_memorization",
    "rouge_l",
    "know",
)
