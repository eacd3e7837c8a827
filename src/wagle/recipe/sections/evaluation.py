"""The sections ``evaluation`` and ``attacks``: what is asked of the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from wagle.recipe.sections.base import Named, Section
from wagle.recipe.values import AtLeastOne, AttackName, Number, Precision, Text, refused

_KEPT = ("retain", "retain_heldout", "general")


class Benchmark(Named):
    """A standard benchmark, asked of every model in addition to the recipe's own sets."""

    name: Text
    """Which one: {benchmarks}. docs/evaluation.md lists their settings and says which run through
    lm-eval."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {data: FOLDER, split: forget10}."""


class Attack(Named):
    """An attack on the unlearned, the original and the reference model."""

    name: Text
    """Which one: {attacks}. docs/attacks.md describes their settings."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {records: exact, learning_rate: 1e-5}."""


class EvaluationSettings(Section):
    """How the model is evaluated before and after unlearning."""

    max_new_tokens: AtLeastOne = 128
    """Maximum tokens of a generated answer."""

    batch_tokens: AtLeastOne | None = None
    """Padded tokens per forward pass; null: as many as memory allows. Changes speed and memory,
    never the result."""

    precision: Precision = "float32"
    """Precision of the matrix products; bfloat16 means autocast over the stored weights."""

    engine: Literal["auto", "whole", "stream"] = "auto"
    """How models are asked: whole (the model in memory), stream (one block of it, and one reading of
    the model for all questions), or auto (whole if it fits). The figures are the same."""

    benchmarks: list[Benchmark] = []
    """Standard benchmarks, in addition to the recipe's own sets."""

    generate: bool = True
    """Have the model write answers (slow), for the metrics that compare texts."""

    fluency: Text | None = None
    """A gibberish classifier (a folder or a hub name) with the label clean: it gives the
    probability that the model's output is language, which the verdict uses. OpenUnlearning's is
    madhurjindal/autonlp-Gibberish-Detector-492513457. Null does not measure it."""

    entailment: Text | None = None
    """A text-pair classifier (a folder or a hub name) with the label entailment, such as
    sileod/deberta-v3-base-tasksource-nli: it judges whether an answer to a forget question entails
    the right one, and whether an answer in another set follows from it. Null does not measure
    it."""

    attacks: Annotated[list[AttackName], Field(min_length=1)] | None = None
    """Membership attacks to run if there is a holdout set: {membership_attacks}; null runs all
    except gradnorm, which takes a backward pass per record. The attack reference is added if there
    is a reference."""

    k: Annotated[list[Annotated[Number, Field(gt=0, le=1)]], Field(min_length=1)] | None = None
    """Shares of the tokens that min_k and min_k++ use, exact as decimals; the first one is the
    headline figure. Null: 0.4."""

    limits: dict[Text, Annotated[Number, Field(ge=0, le=1)] | None] = {}
    """What each set that must stay may lose, as a share of its probability before, such as
    {general: 0.1}; null lets it lose any, and a set that is not named may lose 0.05. If the whole
    95 % interval of the loss lies beyond the limit, the verdict is damaged."""

    records: AtLeastOne | None = None
    """Maximum number of records to evaluate per set, drawn by (seed, record); null takes all."""

    @model_validator(mode="after")
    def _limits_name_sets(self) -> EvaluationSettings:
        for name in self.limits:
            if name not in _KEPT:
                raise refused(
                    f"is no set that must stay; they are {', '.join(_KEPT)}", f"limits.{name}"
                )
        return self
