"""What every attack is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedModel

from wagle.data.records import Record
from wagle.evaluation.figures import ROLES, Figure, Written
from wagle.evaluation.models import Way
from wagle.system.errors import WagleError

ASIS = "as it is"
SHUFFLED = "_shuffled"  # ends the name of a figure for meaningless labels
ATTACKED = ("after", *(role for role in ROLES if role != "after"))  # the unlearned model first


@dataclass(frozen=True)
class Series:
    """What an attack found in one model.

    Attributes:
        states: figures by state.
        start: the state that is the model as it is; None if an attack only observes, once.
        texts: what the model wrote, by state; private.
        details: what else is worth knowing about this model.
    """

    states: Mapping[str, Mapping[str, Figure]]
    start: str | None = None
    texts: Mapping[str, Sequence[Written]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scene:
    """What attacks work with.

    Attributes:
        way: how models are asked.
        sets: records by set.
        seed: for draws.
        model: a folder with a model of the same shape as those attacked, against which settings are
            checked; None: what does not fit shows when a model is attacked.
        trust_remote_code: whether the code of that folder may run.
    """

    way: Way
    sets: Mapping[str, Sequence[Record]]
    seed: int = 0
    model: Path | None = None
    trust_remote_code: bool = False

    def need(self, name: str, attack: str) -> Sequence[Record]:
        """A set that an attack cannot do without."""
        if name not in self.sets:
            raise WagleError(f"the attack {attack} needs a {name} set; add one to the recipe")
        return self.sets[name]


Trial: TypeAlias = Callable[[PreTrainedModel], Series]
