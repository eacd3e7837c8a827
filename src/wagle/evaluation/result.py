"""The result of an evaluation and its file, ``wagle-eval/1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wagle.evaluation.figures import Figure, Measured, Written
from wagle.system.errors import WagleError
from wagle.system.files.reading import first_unfit, one_line, read_json

SCHEMA = "wagle-eval/1"
_ACROSS = 12  # the most metrics side by side in a table


class _Metric(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    value: float | None
    n: int
    direction: str
    target: float | str | None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    interval_method: str
    unit: str
    note: str | None
    per_record: dict[str, float]


class _Set(BaseModel):
    n: int
    digest: str


class _Data(BaseModel):
    sets: dict[str, _Set] = {}
    settings: dict[str, Any] = {}
    salt: str | None = None


class _Model(BaseModel):
    """A model, or a result in place of one."""

    path: str | None = None
    fingerprint: str | None = None
    kind: str = "model"
    patches: list[str] = []
    of: str | None = None
    vocabulary: Annotated[int, Field(gt=0)] | None = None


class _Difference(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    mean: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    p: float
    n: int


class _File(BaseModel):
    """What reading a result file relies on."""

    metrics: dict[str, _Metric]
    summary: dict[str, Any]
    benchmark: str | None = None
    model: _Model = _Model()
    before: _Model | None = None
    reference: _Model | None = None
    data: _Data | None = None
    options: dict[str, Any] | None = None
    probes: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = None
    changes: dict[str, _Difference] = {}
    differences: dict[str, _Difference] = {}
    verdict: str | None = None
    reasons: list[str] = []


@dataclass(frozen=True)
class Evaluation:
    """What a model knows about some sets of records.

    Attributes:
        figures: ``figures[set][metric]``; a metric without data is absent. What is made from
            several sets stands under ``overall``.
        texts: what the model wrote, by set; private.
        peers: the same figures under the names that other tools give them.
        details: model, template, benchmark, options, timing, versions.
        beside: what it was compared with, ``before`` and ``reference``; not in the file.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    texts: Mapping[str, Sequence[Written]] = field(default_factory=dict)
    peers: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Evaluation] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Plain numbers: the value per set and metric; None if it is not defined."""
        return {
            name: {m: f.value for m, f in found.items()} for name, found in self.figures.items()
        }

    def measured(self) -> Measured:
        """The figures alone, as a benchmark gave them."""
        return Measured(self.figures, self.texts, self.peers)

    def to_json(self) -> dict[str, Any]:
        """The content of a ``wagle-eval/1`` file: no record text, no plain digest of it."""
        metrics = {}
        for name, found in self.figures.items():
            for metric, figure in found.items():
                metrics[f"{name}.{metric}"] = {
                    "value": figure.value,
                    "n": figure.n,
                    "direction": figure.direction,
                    "target": figure.target,
                    "interval": figure.interval and list(figure.interval),
                    "interval_method": figure.interval_method,
                    "unit": figure.unit,
                    "note": figure.note,
                    "per_record": dict(figure.per_record),
                }
        return {
            "schema": SCHEMA,
            **self.details,
            "metrics": metrics,
            "summary": {**self.peers} if self.peers else self.summary(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Read back what ``to_json`` gave; the texts stay where they were.

        Raises:
            WagleError: the data has another schema or is damaged; what is missing or wrong is
                named.
        """
        if not isinstance(data, Mapping):
            raise WagleError(f"not a {SCHEMA} file: it is a list or a single value")
        if data.get("schema") != SCHEMA:
            raise WagleError(f"not a {SCHEMA} file (schema {one_line(str(data.get('schema')))})")
        try:
            read = _File.model_validate(data, strict=True)
        except ValidationError as error:
            raise WagleError(
                f"a damaged {SCHEMA} file: {first_unfit(error)}; evaluate again"
            ) from None
        figures: dict[str, dict[str, Figure]] = {}
        for key, m in read.metrics.items():
            name, _, metric = key.rpartition(".")
            figures.setdefault(name, {})[metric] = Figure(
                m.value,
                None if m.interval is None else (m.interval[0], m.interval[1]),
                m.interval_method,
                m.per_record,
                m.direction,
                m.unit,
                m.target,
                m.note,
                None if m.n == len(m.per_record) else m.n,
            )
        details = {k: v for k, v in data.items() if k not in {"schema", "metrics", "summary"}}
        plain = cls(figures, {}, {}, details)
        return plain if read.summary == plain.summary() else replace(plain, peers=read.summary)

    def __str__(self) -> str:
        """A table: sets down and metrics across, or the other way round if metrics are many."""
        columns = list(dict.fromkeys(m for found in self.figures.values() for m in found))
        cells = {
            (name, metric): "-" if value is None else f"{value:.3f}"
            for name, found in self.summary().items()
            for metric, value in found.items()
        }
        down, across = list(self.figures), columns
        turned = len(columns) > _ACROSS
        if turned:
            down, across = across, down
        head = max(map(len, ["", *down])) + 2
        lines = [" " * head + "".join(f"  {title:>7}" for title in across)]
        for row in down:
            keys = [(column, row) if turned else (row, column) for column in across]
            texts = (cells.get(key, "-") for key in keys)
            padded = (f"  {t:>{max(7, len(c))}}" for t, c in zip(texts, across, strict=True))
            lines.append(f"{row:<{head}}" + "".join(padded))
        return "\n".join(lines)


def read_evaluation(path: str | Path) -> Evaluation:
    """Read a ``wagle-eval/1`` file.

    Raises:
        WagleError: there is no such file, or it is damaged; what is missing or wrong is named.
    """
    data = read_json(path)
    try:
        return Evaluation.from_json(data)
    except WagleError as error:
        raise WagleError(f"{one_line(path)} is {error}") from None
