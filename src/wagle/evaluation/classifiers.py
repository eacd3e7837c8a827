"""Text classifiers: how probable a named label is, of toxicity, gibberish or entailment.

Each is a model of others: a folder, or a hub name that is loaded from the cache where the hub is
out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from wagle.errors import WagleError, choose
from wagle.evaluation.embeddings import load_reader, padded
from wagle.evaluation.metrics.text import rouge_l
from wagle.model import check_device

TOXIC = "unitary/toxic-bert"
GIBBERISH = "madhurjindal/autonlp-Gibberish-Detector-492513457"
ENTAILMENT = "sileod/deberta-v3-base-tasksource-nli"
_LEAST_COMMON = 0.1  # ROUGE-L recall below which an answer says nothing of its reference


class Scores(NamedTuple):
    """What a classifier says of n texts.

    Attributes:
        label: probability of the named label, n of them.
        largest: probability of the most probable label.
        top: its name, in lower case.
    """

    label: list[float]
    largest: list[float]
    top: list[str]


class Classifier:
    """A sequence classifier that is asked for one label.

    The labels of a model whose ``problem_type`` is ``multi_label_classification`` are independent
    (sigmoids); of any other they exclude one another (softmax).

    Args:
        source: a model folder or a hub name.
        label: a label of the model, in any case.
        max_length: the most tokens of a text; the rest is cut off. None: what the model can read.

    Raises:
        WagleError: a model that is not there or is no classifier, has one label only, or not the
            one that is asked for.
    """

    def __init__(self, source: str | Path, *, label: str, max_length: int | None = None) -> None:
        self.name = Path(source).name if Path(source).is_dir() else str(source)
        model, tokenizer, missing = load_reader(
            AutoModelForSequenceClassification, source, "classifier"
        )
        if missing:
            raise WagleError(
                f"{source} is no classifier: it has no weights for {min(missing)}; give a model "
                "that was trained to classify texts"
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
        """Classify texts; figures do not depend on batches or order.

        Args:
            texts: n of them; an empty one is scored like any other.
            pairs: n second texts, for a classifier of pairs (premise, hypothesis).
            batch_tokens: padded tokens per forward pass.
        """
        if not texts:
            return Scores([], [], [])
        found = torch.zeros(len(texts), len(self.labels), dtype=torch.float64)
        device = check_device(self.model)
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
    """How many tokens the model has positions for, where it has learned them."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    # RoBERTa and its kind count positions from the padding's on.
    return [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in tables
    ]


def fluency(
    answers: Sequence[str], source: str | Path = GIBBERISH, max_length: int = 32
) -> list[float]:
    """The probability that each of n answers is ``clean`` language: higher is better.

    Args:
        answers: of the model.
        source: a classifier with the label ``clean``.
        max_length: tokens that are read of an answer: 32 for short answers, 512 for passages.

    Source: OpenUnlearning, ``forget_Q_A_gibberish``.
    """
    return Classifier(source, label="clean", max_length=max_length).scores(answers).label


def entailment(
    answers: Sequence[str],
    references: Sequence[str],
    *,
    forget: bool,
    source: str | Path = ENTAILMENT,
) -> list[float]:
    """1 for each of n answers that entails its reference, else 0.

    On the forget set the answer is the premise (does it give the reference away?), elsewhere the
    hypothesis (does it follow from the reference?). An answer with a ROUGE-L recall below 0.1
    says nothing of its reference: 0.

    Args:
        answers: of the model.
        references: the right answers.
        forget: whether they are of the forget set.
        source: a classifier of (premise, hypothesis) with the label ``entailment``.

    Source: Yuan et al. 2024, arXiv 2410.08109.
    """
    premises, hypotheses = (answers, references) if forget else (references, answers)
    top = Classifier(source, label="entailment").scores(premises, hypotheses).top
    return [
        float(label == "entailment" and rouge_l(reference, answer) >= _LEAST_COMMON)
        for label, reference, answer in zip(top, references, answers, strict=True)
    ]
