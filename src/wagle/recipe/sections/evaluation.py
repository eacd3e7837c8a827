"""The sections ``evaluation`` and ``attacks``: what is asked of the model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from wagle.recipe.sections.base import Named, Section
from wagle.recipe.values import AtLeastOne, AttackName, Number, Precision, Text


class Benchmark(Named):
    """A benchmark of the field, asked of every model beside the recipe's own sets."""

    name: Text
    """Which one: {benchmarks}. docs/evaluation.md lists their settings, and says which of them run
    through lm-eval."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {data: FOLDER, split: forget10}."""


class Attack(Named):
    """An attack on the unlearned, the original and the reference model."""

    name: Text
    """Which one: {attacks}. docs/attacks.md has their settings."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {records: exact, learning_rate: 1e-5}."""


class EvaluationSettings(Section):
    """How the model is asked before and after."""

    max_new_tokens: AtLeastOne = 128
    """Tokens of a generated answer at most."""

    batch_tokens: AtLeastOne | None = None
    """Padded tokens per forward pass; null: as many as memory is good for. Changes speed and memory,
    never the result."""

    precision: Precision = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    benchmarks: list[Benchmark] = []
    """Benchmarks of the field, beside the recipe's own sets."""

    generate: bool = True
    """Let the model write answers (slow), for the metrics that compare texts."""

    fluency: Text | None = None
    """A classifier of gibberish, a folder or a hub name, with the label clean: how probable it is that
    what the model writes is language, which the verdict looks at. OpenUnlearning's is
    madhurjindal/autonlp-Gibberish-Detector-492513457. Null does not measure it."""

    entailment: Text | None = None
    """A classifier of pairs of texts, a folder or a hub name, with the label entailment, such as
    sileod/deberta-v3-base-tasksource-nli: whether an answer of the forget set entails the right one,
    and an answer of another set follows from it. Null does not measure it."""

    attacks: Annotated[list[AttackName], Field(min_length=1)] | None = None
    """Membership attacks, with a holdout set, among {membership_attacks}; null: all but gradnorm, which
    takes a backward pass per record. The attack reference comes with a reference."""

    k: Annotated[list[Annotated[Number, Field(gt=0, le=1)]], Field(min_length=1)] | None = None
    """Shares of the tokens that min_k and min_k++ look at, exact as decimals; the first makes the
    headline. Null: 0.4."""

    records: AtLeastOne | None = None
    """Records of each set to evaluate at most, drawn by (seed, record); null takes all."""
