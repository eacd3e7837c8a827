"""Text classifiers: the probability of a named label, for toxicity, gibberish or entailment.

Each is a third-party model: a folder, or a hub name that is loaded from the cache if the hub is out
of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from wagle.evaluation.figures import Written
from wagle.evaluation.judges.embeddings import load_reader, padded
from wagle.metrics.text import rouge_l
from wagle.model.structure import device_of
from wagle.system.errors import WagleError, choose

TOXIC = "unitary/toxic-bert"
SHORT, LONG = 32, 512  # tokens read of answers to questions, and of passages
_LEAST_COMMON = 0.1  # ROUGE-L recall below which an answer says nothing about its reference


class Scores(NamedTuple):
    """What a classifier says about n texts.

    Attributes:
        label: n probabilities of the named label.
        largest: n probabilities of the most probable label.
        top: the names of these, in lower case.
    """

    label: list[float]
    largest: list[float]
    top: list[str]


class Classifier:
    """A sequence classifier that is asked about one label.

    The labels of a model whose ``problem_type`` is ``multi_label_classification`` are independent
    (sigmoids); those of any other exclude one another (softmax).

    Args:
        source: a model folder or a hub name.
        label: a label of the model, in any case.
        max_length: the most tokens of a text; the rest is cut off. None: what the model can read.

    Raises:
        WagleError: the model is missing or no classifier, has only one label, or lacks the one
            asked for.
    """

    def __init__(self, source: str | Path, *, label: str, max_length: int | None = None) -> None:
        self.name = Path(source).name if Path(source).is_dir() else str(source)
        model, tokenizer, missing = load_reader(
            AutoModelForSequenceClassification, source, "classifier"
        )
        if missing:
            raise WagleError(
                f"{source} is not a classifier: it has no weights for {min(missing)}; give a "
                "model that was trained to classify texts"
            )
        config: Any = model.config
        kind = config.problem_type
        if config.num_labels < 2 or kind == "regression":
            raise WagleError(
                f"classifier {source} gives one number, not probabilities of labels; give one with "
                f"at least two labels, of which one is {label!r}"
            )
        self.labels = [str(config.id2label[i]).lower() for i in range(config.num_labels)]
        places = {name: i for i, name in enumerate(self.labels)}
        self.label = choose(places, label.lower(), f"label of classifier {self.name}")
        self.independent = kind == "multi_label_classification"
        self.model, self.tokenizer = model, tokenizer
        limits = [tokenizer.model_max_length, *_positions(model)]
        self.max_length = min(limits if max_length is None else [max_length, *limits])

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_tokens: int = 4096
    ) -> Scores:
        """Classify texts; the result does not depend on batches or order.

        Args:
            texts: n of them; an empty one is scored like any other.
            pairs: n second texts, for a classifier of (premise, hypothesis) pairs.
            batch_tokens: padded tokens per forward pass.
        """
        if not texts:
            return Scores([], [], [])
        found = torch.zeros(len(texts), len(self.labels), dtype=torch.float64)
        device = device_of(self.model)
        with torch.no_grad():
            for places, batch in padded(
                self.tokenizer, texts, pairs, self.max_length, batch_tokens
            ):
                logits = self.model(**{k: v.to(device) for k, v in batch.items()}).logits
                found[places] = logits.double().cpu()
        if not found.isfinite().all():
            raise WagleError(f"classifier {self.name} gives numbers that are not finite")
        shares = found.sigmoid() if self.independent else found.softmax(-1)  # (n, labels)
        largest, place = shares.max(-1)
        return Scores(
            shares[:, self.label].tolist(),
            largest.tolist(),
            [self.labels[i] for i in place.tolist()],
        )


def _positions(model: nn.Module) -> list[int]:
    """How many tokens the model has positions for, if it learned them."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    # RoBERTa and its kind count positions from the padding index on.
    return [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in tables
    ]


@dataclass(frozen=True)
class Judges:
    """The classifiers that judge an evaluation's answers; None: that figure is not measured."""

    fluency: Classifier | None = None
    entailment: Classifier | None = None

    @property
    def settings(self) -> dict[str, str | None]:
        """Their names: figures from different classifiers are not comparable."""
        return {name: None if one is None else one.name for name, one in self._both.items()}

    @property
    def notes(self) -> dict[str, str]:
        """What the reader of each figure needs to know."""
        return {name: f"classifier {one.name}" for name, one in self._both.items() if one}

    @property
    def _both(self) -> dict[str, Classifier | None]:
        return {"fluency": self.fluency, "entailment": self.entailment}

    def rows(self, texts: Sequence[Written], *, forget: bool) -> dict[str, dict[str, float]]:
        """What they say about n answers, by figure and place.

        Args:
            texts: what the model wrote, and what it should have written.
            forget: whether these are answers that should go.
        """
        said, expected = ([getattr(t, side) for t in texts] for side in ("said", "expected"))
        made = {}
        if self.fluency is not None:
            made["fluency"] = fluency(self.fluency, said)
        if self.entailment is not None:
            made["entailment"] = entailment(self.entailment, said, expected, forget=forget)
        places = [text.place for text in texts]
        return {name: dict(zip(places, found, strict=True)) for name, found in made.items()}


def load_judges(
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    *,
    length: int = SHORT,
    writes: bool = True,
) -> Judges:
    """Load the classifiers of an evaluation.

    Args:
        fluency: a folder or hub name of a classifier with the label ``clean``; None: none.
        entailment: the same for (premise, hypothesis) pairs with the label ``entailment``; None:
            none.
        length: how many tokens of an answer ``fluency`` reads: ``SHORT`` or ``LONG``.
        writes: whether there will be answers to judge.

    Raises:
        WagleError: a classifier is missing, is no classifier or lacks the label; there are no
            answers.
    """
    for name, source in (("fluency", fluency), ("entailment", entailment)):
        if source is not None and not writes:
            raise WagleError(
                f"{name} judges what the model writes, but it writes nothing here; leave it out"
            )
    return Judges(
        None if fluency is None else Classifier(fluency, label="clean", max_length=length),
        None if entailment is None else Classifier(entailment, label="entailment"),
    )


def fluency(judge: Classifier, answers: Sequence[str]) -> list[float]:
    """The probability that each of n answers is ``clean`` language: higher is better.

    Args:
        judge: a classifier asked about the label ``clean``.
        answers: the model's answers.

    Source: OpenUnlearning, ``forget_Q_A_gibberish``.
    """
    return judge.scores(answers).label


def entailment(
    judge: Classifier, answers: Sequence[str], references: Sequence[str], *, forget: bool
) -> list[float]:
    """1 for each of n answers that entails its reference, else 0.

    On the forget set the answer is the premise (does it give the reference away?), elsewhere the
    hypothesis (does it follow from the reference?). An answer with a ROUGE-L recall below 0.1 says
    nothing about its reference: 0.

    Args:
        judge: a classifier of (premise, hypothesis) with the label ``entailment``.
        answers: the model's answers.
        references: the right answers.
        forget: whether they belong to the forget set.

    Source: Yuan et al. 2024, arXiv 2410.08109.
    """
    premises, hypotheses = (answers, references) if forget else (references, answers)
    top = judge.scores(premises, hypotheses).top
    return [
        float(label == "entailment" and rouge_l(reference, answer) >= _LEAST_COMMON)
        for label, reference, answer in zip(top, references, answers, strict=True)
    ]
