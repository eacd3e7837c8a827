"""The files of a run that tables and pages are made from, and the shapes that these rely on.

A run folder may come from a stranger: what does not fit is one line that names the file and the
part. Nothing heavy is imported here: the state is read by commands that need no model. Files of older versions, which lack some parts, are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wagle.system.errors import WagleError
from wagle.system.files.reading import fitting, one_line, read_json
from wagle.system.files.seals import content_digest

LEAK = "leak@"  # before a number of answers, in the names of figures
_STATE = re.compile(r"(?:.*, )?step [0-9]{1,12}", re.DOTALL)
_LEAKS = re.compile(r"leak@[1-9][0-9]{0,11}")


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


def _inside(name: str) -> str:
    """A path that stays inside its folder, or a pattern of such paths."""
    path = name.removesuffix("/")
    parts = path.split("/")
    if not path or {"", ".", ".."} & set(parts) or "**" in path or not path.isprintable():
        raise ValueError("it is not the name of a file in the run folder")
    if len(path) > 1000 or max(map(len, parts)) > 255:
        raise ValueError("no file of a run has so long a name")
    return name


def _one_file(name: str) -> str:
    if "/" in name:
        raise ValueError("it is not the name of a file")
    return _inside(name)


Count: TypeAlias = Annotated[int, Field(ge=0)]
Pair: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)]
Label: TypeAlias = Annotated[str, AfterValidator(_one_file)]
Place: TypeAlias = Annotated[str, AfterValidator(_inside)]
Word: TypeAlias = Literal[
    "no leak found by these probes", "leaks", "damaged", "over-unlearned", "inconclusive"
]
Values: TypeAlias = dict[str, dict[str, float | None]]  # by set and metric


# ---------------------------------------------------------------------------------------------
# state.json


class _Stage(_Part):
    seconds: Annotated[float, Field(ge=0)] = 0
    peak_bytes: Annotated[float, Field(ge=0)] = 0
    skipped: str | None = None


class _Reference(_Stage):
    of: Literal["base", "twins"] | None = None


class _Neighbours(_Stage):
    kind: Literal["neighbours", "neutral"] | None = None


class _Mask(_Stage):
    score: Any = None
    settings: dict[str, Any] = {}
    candidates: Count | None = None
    ratios: list[float] | None = None
    thresholds: list[float | None] | None = None
    score_histogram: (
        dict[str, list[Annotated[list[int | None], Field(min_length=2, max_length=2)]]] | None
    ) = None


class _Landed(_Part):
    figure: str
    value: float
    aim: Pair
    between: Annotated[list[Count], Field(min_length=2, max_length=2)]
    share: float


class _Best(_Part):
    step: Count
    meets: bool = True


class _Objective(_Part):
    name: str


class _Unlearn(_Stage):
    selected: Count | None = None
    changed: Count | None = None
    steps: Count | None = None
    stopped: str | None = None
    objective: _Objective | None = None
    landed: _Landed | None = None
    best: _Best | None = None
    lora: Any = None


class _Patch(_Stage):
    changed: Count | None = None
    total: Count | None = None
    tensors: Count | None = None
    outside_mask: Count | None = None
    bytes: Count | None = None
    share_of_model: float | None = None


class _Made(_Part):
    """A control arm's model, or a form in which the model is served."""

    summary: Values
    verdict: str | None = None


class _Deploy(_Stage):
    forms: dict[str, _Made] = {}
    compared_with: str = ""


class _Judged(_Part):
    verdict: Word
    reasons: list[str] = []


class _After(_Stage):
    verdict: Word | None = None
    reasons: list[str] = []
    served: dict[str, _Judged] = {}


class _Attacks(_Stage):
    attacks: dict[Label, Any] = {}


class _Controls(_Stage):
    arms: dict[Literal["random", "dense"], _Made] = {}


_ABSENT: Any = None


class _Stages(BaseModel):
    """Every stage is absent until it is finished; it is never null."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")
    __pydantic_extra__: dict[str, _Stage] = Field(init=False)

    reference: _Reference = _ABSENT
    neighbours: _Neighbours = _ABSENT
    mask: _Mask = _ABSENT
    unlearn: _Unlearn = _ABSENT
    patch: _Patch = _ABSENT
    deploy: _Deploy = _ABSENT
    after: _After = _ABSENT
    attacks: _Attacks = _ABSENT
    controls: _Controls = _ABSENT


class _Seal(BaseModel):
    model_config = ConfigDict(extra="forbid")

    files: dict[Place, str]
    stamps: dict[Place, Annotated[list[int], Field(min_length=2, max_length=2)]]
    writes: list[Place]
    read: dict[Place, str] = {}


class _State(_Part):
    stages: _Stages
    seals: dict[str, _Seal] = {}
    deleted: list[Place] = []
    purged: dict[str, Any] = {}


def read_state(path: Path) -> dict[str, Any]:
    """The content of a ``state.json``: ``stages``, ``seals`` and what else a run keeps there.

    Raises:
        WagleError: it was edited since wagle wrote it, or is not what wagle writes.
    """
    found = read_json(path)
    where = one_line(path)
    if not isinstance(found, dict):
        raise WagleError(f"{where} was altered: it holds no stages; restore it")
    own = found.pop("seal", None)
    if own is not None and own != content_digest(found):
        raise WagleError(
            f"{where} was edited since wagle wrote it; put it back, or run the recipe again in a "
            "new folder"
        )
    fitting(_State, found, where, "restore it, or run the recipe again in a new folder")
    return found


def told(stages: Mapping[str, Mapping[str, Any]], stage: str, key: str) -> Any:
    """What a finished stage says in ``state.json``.

    Raises:
        WagleError: it does not say it.
    """
    found = stages.get(stage, {}).get(key)
    if found is None:
        raise WagleError(
            f"state.json was altered: the stage {stage} does not say its {key}; restore it, or run "
            "the recipe again in a new folder"
        )
    return found


# ---------------------------------------------------------------------------------------------
# Other files


class _Figure(_Part):
    value: float | None
    interval: Pair | None
    n: Count
    unit: str
    note: str | None


class _Effect(_Part):
    rise: float | None
    recovered: float | None
    gap: float | None
    note: str | None


class _Series(_Part):
    states: Annotated[dict[str, dict[str, _Figure]], Field(min_length=1)]
    details: dict[str, Any] = {}


class _Codes(_Part):
    not_quantized: Count
    weights: Count
    changed: Count
    code_changed: float | None
    below_half_step: float | None


class _Attack(_Part):
    schema_: Literal["wagle-attack/1"] = Field(alias="schema")
    attack: str
    settings: dict[str, Any]
    roles: dict[str, _Series]
    effects: dict[str, dict[str, _Effect]]
    codes: dict[str, _Codes] = {}
    model: str | None = None

    @model_validator(mode="after")
    def _names_are_those_of_the_attack(self) -> _Attack:
        if "after" not in self.roles:
            raise ValueError("roles lacks the unlearned model, after")
        for series in self.roles.values():
            for state, figures in series.states.items():
                if self.attack == "relearning" and not _STATE.fullmatch(state):
                    raise ValueError(f"{one_line(state)} is not a number of steps")
                odd = [n for n in figures if n.startswith(LEAK) and not _LEAKS.fullmatch(n)]
                if odd:
                    raise ValueError(f"{one_line(odd[0])} is not a number of answers")
        return self


def read_attack(path: Path) -> dict[str, Any]:
    """The content of a ``wagle-attack/1`` file.

    Raises:
        WagleError: it is not what wagle writes.
    """
    found: dict[str, Any] = read_json(path)
    fitting(_Attack, found, one_line(path))
    return found


class _Summary(BaseModel):
    model_config = ConfigDict(extra="allow")

    benchmarks: dict[Label, Any] = {}


def read_summary(path: Path) -> dict[str, Any]:
    """The content of ``evaluation.json``: values by role, set and metric.

    Raises:
        WagleError: it is not what wagle writes.
    """
    found: dict[str, Any] = read_json(path)
    fitting(_Summary, found, one_line(path))
    return found


class _Said(_Part):
    place: str
    question: str
    expected: str
    said: str
    finished: bool = True


def read_answers(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What a model said, by set.

    Raises:
        WagleError: it is not what wagle writes.
    """
    found: dict[str, list[dict[str, Any]]] = read_json(path)
    fitting(dict[str, list[_Said]], found, one_line(path))
    return found


def read_environment(path: Path) -> dict[str, Any]:
    """The versions and the machine that a run was made with.

    Raises:
        WagleError: it is not what wagle writes.
    """
    found: dict[str, Any] = read_json(path)
    where = one_line(path)
    fitting(dict[str, Any], found, where)
    sizes = {key: value for key, value in found.items() if key.endswith("_bytes")}
    fitting(dict[str, float], sizes, where)
    return found
