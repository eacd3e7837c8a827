"""What an import makes: a recipe, and in lines for a reader what it follows and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import Section, section_of
from wagle.recipe.syntax import Dumper
from wagle.recipe.values import plain

ALL_WEIGHTS = {"by_name": ["*"]}  # left out, wagle would select 0.8 of them
EVERY: dict[str, Any] = {  # what every import begins with
    "attribution": {"score": ALL_WEIGHTS},
    "unlearning": {
        "stop_when": [],
        "pairing": "random",
        "schedule": "linear",
        "precision": "bfloat16",
    },
}
OWN: dict[
    str, dict[str, float]
] = {  # settings of objectives whose defaults an import may leave out
    "ce_u": {"skip": 1},
    "dpo": {"beta": 0.1},
    "dpo_alt": {"beta": 0.1},
    "npo": {"beta": 0.1, "beta_token_mean": False},
    "pdu": {"epsilon": 0.3, "eta": 5.0, "warmup": 2.5, "dual_start": 100.0},
    "rmu": {"layer": 7, "steering": 20.0, "retain_weight": 100.0},
    "satimp": {"beta1": 5.0, "beta2": 1.0, "retain_weight": 0.1},
    "simnpo": {"beta": 4.5, "margin": 0.0, "forget_weight": 0.125},
    "undial": {"beta": 10.0},
    "wga": {"beta": 1.0},
}
_WEIGHTS = {"forget_weight": 1.0, "retain_weight": 1.0}


class Needed(NamedTuple):
    """A file or folder that a recipe reads.

    Attributes:
        path: where the recipe looks for it.
        fetched: what the published code fetches in its place.
        remedy: what to do if it is not there.
    """

    path: str
    fetched: str
    remedy: str


class MaskFile(NamedTuple):
    """A published mask, and the mask file that is made of it."""

    published: str
    path: str


@dataclass(frozen=True)
class Places:
    """Where models and records are, since the published code fetches them and wagle does not.

    Attributes:
        model: the model folder; None: the last part of its hub name, in the current folder.
        data: the folder that holds the data sets; None: the current folder.
        exists: whether a path exists.
    """

    model: str | None = None
    data: str | None = None
    exists: Callable[[str], bool] = lambda _: False

    def of_model(self, hub: str) -> str:
        """The folder of a model."""
        return self.model or hub.rstrip("/").rpartition("/")[2]

    def of_data(self, name: str) -> str:
        """The path of a data set, or of a file of one."""
        return name if self.data is None else f"{self.data.rstrip('/')}/{name}"


@dataclass
class Notes:
    """What a reader must know about an import, one line each.

    Attributes:
        imitated: switches of the recipe that imitate the published code.
        differs: where the recipe does not do what the published code does.
        left_out: keys without a counterpart.
        remarks: anything else, such as what is to be decided.
        needed: what the recipe reads.
    """

    imitated: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    needed: list[Needed] = field(default_factory=list)

    def need(self, path: str, fetched: str, remedy: str) -> str:
        """Note what the recipe reads; returns the path."""
        for i, one in enumerate(self.needed):
            if one.path == path:
                if fetched not in one.fetched:
                    self.needed[i] = one._replace(fetched=f"{one.fetched} and {fetched}")
                return path
        self.needed.append(Needed(path, fetched, remedy))
        return path

    def lines(self, left_out: bool = True) -> Iterator[str]:
        """Everything but what is needed; ``left_out``: with the keys without a counterpart."""
        titles = {
            "imitated": self.imitated,
            "not imitated": self.differs,
            "no counterpart": self.left_out if left_out else [],
            "note": self.remarks,
        }
        for title, said in titles.items():
            for line in dict.fromkeys(said):
                yield f"{title}: {line}"


@dataclass(frozen=True)
class Imported:
    """A recipe made of a config of another project.

    Attributes:
        project: whose config it was.
        corrected: whether published defects were left out rather than imitated.
        recipe: the recipe's settings, without those that are wagle's defaults.
        notes: what a reader must know.
        mask: the published mask that it uses, if any.
    """

    project: str
    corrected: bool
    recipe: dict[str, Any]
    notes: Notes
    mask: MaskFile | None = None

    def lines(self, left_out: bool = True) -> list[str]:
        """What was made of what, and every note; ``left_out`` as in the notes."""
        how = "corrected" if self.corrected else "faithful"
        return [f"recipe made from a config of {self.project}, {how}", *self.notes.lines(left_out)]

    def text(self) -> str:
        """The recipe as YAML, with the notes in its first lines."""
        head = "".join(f"# {' '.join(line.split())}\n" for line in self.lines())
        return head + dump_short(self.recipe)


def dump_short(recipe: Mapping[str, Any]) -> str:
    """YAML of settings as they were given, short mappings on one line."""
    return yaml.dump(
        dict(recipe), Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )


def finish(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the settings that are wagle's defaults, and with record sets in short form."""
    found = dict.fromkeys(recipe) | _without_defaults(recipe, Recipe)
    trained = found["unlearning"] or {}
    trained = {"objective": trained.pop("objective", "npo"), **trained}  # said in any case
    own = {**_WEIGHTS, **OWN.get(trained["objective"], {})}
    settings = trained.pop("objective_settings", {})
    kept = {name: value for name, value in settings.items() if own.get(name) != value}
    if kept:
        trained = {"objective": trained.pop("objective"), "objective_settings": kept, **trained}
    found["unlearning"] = trained
    for name in ("forget", "retain"):
        short = found.get(name)
        if (
            isinstance(short, dict)
            and list(short) == ["source"]
            and isinstance(short["source"], str)
        ):
            found[name] = short["source"]
    asked = (found.get("evaluation") or {}).get("benchmarks", [])
    asked[:] = [one["name"] if list(one) == ["name"] else one for one in asked]
    return {name: value for name, value in found.items() if value is not None}


def _without_defaults(data: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        known = section.model_fields[name]
        inner = section_of(known.annotation)
        if inner is not None and isinstance(value, Mapping):
            value = _without_defaults(value, inner)
            if not value and not known.is_required():
                continue
        elif not known.is_required() and value == plain(known.default):
            continue
        found[name] = value
    return found
