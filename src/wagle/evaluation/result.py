"""From a model and sets of records to figures with intervals, and their file ``wagle-eval/1``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle import __version__
from wagle.data.records import Source, read_records
from wagle.data.tokens import Encoder, as_encoder
from wagle.errors import WagleError
from wagle.evaluation import qa
from wagle.evaluation.engine import GreedyAnswer, answer_requests
from wagle.evaluation.metrics import METRICS
from wagle.evaluation.statistics import bootstrap_interval, wilson_interval
from wagle.model import load_model, load_tokenizer
from wagle.weights import fingerprint

SCHEMA = "wagle-eval/1"
SETS = ("forget", "retain", "retain_heldout", "general")
FORGOTTEN = "forgotten"  # a set beside these: what earlier requests asked to forget
_GONE = ("forget", FORGOTTEN)  # sets of which the model should know less


@dataclass(frozen=True)
class Figure:
    """The mean of a metric over the records of a set, with its 95 % interval."""

    value: float
    interval: tuple[float, float]
    interval_method: str
    per_record: dict[str, float]

    @property
    def count(self) -> int:
        """How many records it is a mean of."""
        return len(self.per_record)


@dataclass(frozen=True)
class Answer:
    """A question, the right answer and what the model said: private, it holds record text."""

    place: str
    question: str
    expected: str
    said: str
    finished: bool


@dataclass(frozen=True)
class Evaluation:
    """What a model knows of some sets of records.

    Attributes:
        figures: ``figures[set][metric]``; a metric without data is absent.
        answers: the greedy answers, by set.
        details: model, template, options, timing, versions.
    """

    figures: dict[str, dict[str, Figure]]
    answers: dict[str, list[Answer]]
    details: dict[str, Any]

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Plain numbers: per set and metric the value, or None where there is no data."""
        return {
            name: {
                metric: found[metric].value if metric in found else None
                for metric in METRICS
                if metric != "paraphrased" or name in _GONE
            }
            for name, found in self.figures.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The content of a ``wagle-eval/1`` file: no record text, no plain digest of it."""
        metrics = {}
        for name, found in self.figures.items():
            for metric, figure in found.items():
                kind = METRICS[metric]
                metrics[f"{name}.{metric}"] = {
                    "value": figure.value,
                    "n": figure.count,
                    "direction": kind.direction if name in _GONE else "higher",
                    "target": "reference" if name == "forget" else None,
                    "interval": list(figure.interval),
                    "interval_method": figure.interval_method,
                    "unit": kind.unit,
                    "note": None,
                    "per_record": figure.per_record,
                }
        return {"schema": SCHEMA, **self.details, "metrics": metrics, "summary": self.summary()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Read back what ``to_json`` gave; the answers stay where they were."""
        if data.get("schema") != SCHEMA:
            raise WagleError(f"not a {SCHEMA} file (schema {data.get('schema')})")
        figures: dict[str, dict[str, Figure]] = {}
        for key, m in data["metrics"].items():
            name, metric = key.split(".")
            figures.setdefault(name, {})[metric] = Figure(
                m["value"], tuple(m["interval"]), m["interval_method"], m["per_record"]
            )
        details = {k: v for k, v in data.items() if k not in {"schema", "metrics", "summary"}}
        return cls(figures, {}, details)

    def __str__(self) -> str:
        """A table: sets down, metrics across."""
        lines = [f"{'':<15}" + "".join(f"{metric:>21}" for metric in METRICS)]
        for name, found in self.summary().items():
            cells = [found.get(metric) for metric in METRICS]
            lines.append(
                f"{name:<15}" + "".join(f"{'-' if c is None else f'{c:.3f}':>21}" for c in cells)
            )
        return "\n".join(lines)


def evaluate(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None = None,
    *,
    forget: Source | None = None,
    retain: Source | None = None,
    retain_heldout: Source | None = None,
    general: Source | None = None,
    forgotten: Source | None = None,
    max_new_tokens: int = 128,
    batch_tokens: int = 2048,
    precision: str = "float32",
    generate: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Measure what a model knows of each set of records.

    Args:
        model: a live model or a local model folder.
        tokenizer: a fast tokenizer or an ``Encoder``; with a folder, None takes the folder's own.
        forget: the records that should be forgotten.
        retain: the records kept while unlearning.
        retain_heldout: records that should be kept too, but were not used.
        general: records of general knowledge.
        forgotten: records that were forgotten before, and should not come back.
        max_new_tokens: the longest greedy answer.
        batch_tokens: padded tokens per forward pass. Changes speed, never the figures.
        precision: of the matrix products: ``float32``, or ``bfloat16`` (autocast).
        generate: also ask for greedy answers (``rouge_l``).
        seed: of the bootstrap.

    Returns:
        Figures per set and metric; ``print`` shows them as a table.
    """
    sources = {
        "forget": forget,
        "retain": retain,
        "retain_heldout": retain_heldout,
        "general": general,
        FORGOTTEN: forgotten,
    }
    given = {name: source for name, source in sources.items() if source is not None}
    if not given:
        raise WagleError("nothing to evaluate: give at least one set of records")
    started = time.perf_counter()
    if tokenizer is None and not isinstance(model, nn.Module):
        tokenizer = load_tokenizer(model)
    live = model if isinstance(model, nn.Module) else load_model(model)
    encoder = as_encoder(tokenizer)
    asked = {
        name: qa.items(
            read_records(source, name=name, seed=seed),
            encoder,
            max_new_tokens=max_new_tokens,
            generate=generate,
        )
        for name, source in given.items()
    }
    ends = live.generation_config.eos_token_id if live.generation_config else None
    answers = answer_requests(
        live,
        [r for made in asked.values() for item in made for r in item.requests.values()],
        stop_ids=encoder.stop_ids(ends) if encoder.tokenizer is not None else [0],
        batch_tokens=batch_tokens,
        dtype=precision,
    )
    figures: dict[str, dict[str, Figure]] = {}
    texts: dict[str, list[Answer]] = {}
    for name, made in asked.items():
        rows: dict[str, dict[str, float]] = {}
        texts[name] = []
        for item in made:
            said = qa.greedy_text(item, answers, encoder)
            for metric, value in qa.figures(item, answers, said).items():
                rows.setdefault(metric, {})[item.name] = value
            if said is not None:
                found = answers[item.requests["greedy"]]
                assert isinstance(found, GreedyAnswer)
                record = item.record
                texts[name].append(
                    Answer(record.place, record.prompt, record.answer, said, found.finished)
                )
        figures[name] = {m: _figure(m, rows[m], seed) for m in METRICS if m in rows}
    details = {
        "model": {
            "path": None if isinstance(model, nn.Module) else str(model),
            "fingerprint": fingerprint(live),
            "dtype": str(live.dtype).removeprefix("torch."),
        },
        "template": encoder.describe(),
        "benchmark": qa.NAME,
        "variant": f"version {qa.VERSION}",
        "options": {
            "max_new_tokens": max_new_tokens,
            "precision": precision,
            "generate": generate,
            "seed": seed,
        },
        "timing": {"seconds": round(time.perf_counter() - started, 2), "requests": len(answers)},
        "versions": {
            "wagle": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    return Evaluation(figures, texts, details)


def _figure(metric: str, rows: dict[str, float], seed: int) -> Figure:
    values = list(rows.values())
    value = sum(values) / len(values)
    if METRICS[metric].share:
        return Figure(value, wilson_interval(int(sum(values)), len(values)), "wilson 95 %", rows)
    return Figure(value, bootstrap_interval(values, seed), "bootstrap 95 %, 10000 replicates", rows)
