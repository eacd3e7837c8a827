"""What scripts read: the JSON that ``wagle run`` and ``wagle evaluate`` print, and their exit codes.

At the top stand the schema, the verdict with its reasons, and the roles; below them the figures.
``docs/verdict.schema.json`` is made from these classes by ``make pages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from wagle.evaluation.result import Evaluation
from wagle.evaluation.roles import roles_of
from wagle.report.files import Word
from wagle.report.text.run import summary_json

RUN_SCHEMA = "wagle-run/1"
EXIT_CODES = {  # by verdict; 2 is bad input
    "no leak found by these probes": 0,
    "leaks": 1,
    "damaged": 1,
    "over-unlearned": 1,
    "inconclusive": 3,
}


def exit_code(verdict: str | None) -> int:
    """The exit code of ``run`` and ``evaluate`` for a verdict; 0 if there is none."""
    return 0 if verdict is None else EXIT_CODES[verdict]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class Role(_Part):
    """A model and which one it is."""

    path: str | None = Field(description="As it was named or made; null for a live model.")
    fingerprint: str | None = Field(
        description="SHA-256 over its weights; null if a result does not state it."
    )
    kind: str = Field(description="model, result (of wagle or another tool), untaught, retrained.")


class Roles(_Part):
    """The models that were compared, each another one."""

    model: Role = Field(description="The model that is judged; in a run the one after unlearning.")
    before: Role | None = Field(description="The model before unlearning.")
    reference: Role | None = Field(description="A model that never learned the forget set.")


class Metric(_Part):
    """A figure."""

    value: float | None = Field(description="Null if it is not defined; the note says why.")
    interval: list[float] | None = Field(description="Its 95 % interval.")
    n: int = Field(description="How many records it is made from.")
    direction: str = Field(description="Which way is better: higher, lower or target.")


class Difference(_Part):
    """A paired difference between two models over the same records."""

    mean: float
    interval: list[float] = Field(description="Its 95 % interval.")
    p: float = Field(description="Two-sided p of the sign-flip test.")
    n: int = Field(description="How many records both were asked about.")


class _Judged(_Part):
    verdict: Word | None = Field(description="Null without a model before, or without probes.")
    reasons: list[str] = Field(description="A sentence for every figure that led to the verdict.")
    roles: Roles


class EvaluationJson(_Judged):
    """What ``wagle evaluate --benchmark --json`` prints and ``--out`` writes: a result file."""

    schema_: Literal["wagle-eval/1"] = Field(alias="schema")
    benchmark: str
    metrics: dict[str, Metric] = Field(description="By set and metric: forget.probability.")
    changes: dict[str, Difference] | None = Field(
        default=None, description="Differences to the model before; absent without one."
    )
    differences: dict[str, Difference] | None = Field(
        default=None, description="Differences to the reference; absent without one."
    )


class RunJson(_Judged):
    """What ``wagle run --json`` prints, and ``wagle evaluate RECIPE --json``."""

    schema_: Literal["wagle-run/1"] = Field(alias="schema")
    evaluation: dict[str, Any] = Field(
        description="Values by role (before, after, reference), set and metric; benchmarks below "
        "their own key."
    )
    differences: dict[str, dict[str, dict[str, Difference]]] = Field(
        description="By benchmark (qa: the recipe's own sets), then changes and differences."
    )
    stages: dict[str, dict[str, Any]] = Field(description="What every finished stage found.")
    attacks: dict[str, Any] | None = Field(
        default=None, description="The result of every attack; absent if there was none."
    )


def run_json(folder: Path, roles: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Verdict, roles, figures, paired differences, costs and attacks of a run.

    Args:
        folder: the folder of a run that has an unlearned model.
        roles: path, fingerprint and kind of its models, by role.
    """
    found = summary_json(folder)
    after = found["stages"].get("after", {})
    judged = {"verdict": after.get("verdict"), "reasons": after.get("reasons", [])}
    return _in_order(RunJson, {"schema": RUN_SCHEMA, **judged, "roles": roles, **found})


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """An evaluation as a result file, with its verdict, if there is one, and its roles."""
    judged: dict[str, Any] = {"verdict": None, "reasons": [], "roles": roles_of(found.details)}
    return _in_order(EvaluationJson, {**judged, **found.to_json()})


def _in_order(kind: type[_Judged], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data, checked against its schema, with what is common to both kinds at the top."""
    top = ("schema", "verdict", "reasons", "roles")
    kind.model_validate(data)
    return {**{key: data[key] for key in top}, **{k: v for k, v in data.items() if k not in top}}


def verdict_schema() -> dict[str, Any]:
    """The JSON Schema of both kinds of output."""
    both: Any = Annotated[EvaluationJson | RunJson, Field(discriminator="schema_")]
    title = "What wagle run --json and wagle evaluate --json print"
    made = TypeAdapter(both).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **made}
