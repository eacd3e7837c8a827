"""Units: freshly taught models, each with its own seed and its own records to forget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wagle.attribution.store import GradientStore
from wagle.comparison.arms import ArmMasks, arm_quantities
from wagle.evaluation.figures import SETS
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.attribution import Attribution
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.sections.unlearning import Lora
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.stages.table import STAGES
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back

_DEMO = re.compile(r"demo:(forget|retain|retain_heldout)(?:@(\d+))?")


def unit_recipe(recipe: Recipe, unit: int) -> Recipe:
    """The recipe of one unit: unit 0 is the recipe itself.

    Another unit has another seed, and so a different teaching order and different records wherever
    ``take`` draws them; of the demo's sets it takes ``demo:SET@N``.

    Raises:
        WagleError: the recipe does not teach.
    """
    if recipe.finetune is None:
        raise WagleError("wagle compare needs to teach its units; add finetune")
    if unit == 0:
        return recipe
    sets = {name: asked for name in SETS if (asked := getattr(recipe, name)) is not None}
    moved: dict[str, Any] = {name: _moved(asked, unit) for name, asked in sets.items()}
    forget = moved.get("forget")
    if forget is not None and forget.seed is not None:  # a fixed seed would draw the same records
        moved["forget"] = forget.model_copy(update={"seed": forget.seed + unit})
    records = recipe.finetune.records
    if records is not None:
        taught = {"records": _moved(records, unit)}
        moved["finetune"] = recipe.finetune.model_copy(update=taught)
    return recipe.model_copy(update={**moved, "seed": (recipe.seed + unit) % 2**32})


def _moved(asked: RecordSet, unit: int) -> RecordSet:
    """The same set for another unit: the demo's sets are dealt out again."""

    def move(source: str) -> str:
        found = _DEMO.fullmatch(source)
        return f"demo:{found[1]}@{int(found[2] or 0) + unit}" if found else source

    several = isinstance(asked.source, list)
    sources = [move(s) for s in asked.source] if several else move(str(asked.source))
    return asked.model_copy(update={"source": sources})


def forget_set_varies(recipe: Recipe) -> bool:
    """Whether units differ in what they forget, not just in seed and teaching order."""
    asked = recipe.forget
    if asked is None:
        return False
    sources = [asked.source] if isinstance(asked.source, str) else asked.source
    return asked.take != "all" or any(_DEMO.fullmatch(source) for source in sources)


@dataclass(frozen=True)
class Unit:
    """A unit's folder: a run that stops after teaching, its gradient store and its masks.

    Attributes:
        number: of the unit, from 0.
        run: its run folder; ``base/`` is the taught model.
        first: the arm whose mask others refer to.
        ratios: of the masks.
        settings: how scores are computed, as in the recipe.
        lora: how the adapter of the arm ``lora`` is made.
    """

    number: int
    run: Run
    first: str
    ratios: Sequence[float]
    settings: Attribution
    lora: Lora

    @cached_property
    def masks(self) -> ArmMasks:
        """The masks of the arms; gradients are taken once for all of them."""
        STAGES["gradients"](self.run)  # an existing store is only opened
        give_memory_back()
        store = GradientStore.open(self.run.models.gradients)
        seed = self.run.recipe.seed
        folder = self.run.folder / "masks"
        return ArmMasks(store, folder, self.first, self.ratios, self.settings, seed)


def make_unit(
    recipe: Recipe, number: int, folder: Path, arms: Sequence[str], ratios: Sequence[float]
) -> Unit:
    """Teach a unit, or reopen it; one gradient pass serves all arms.

    Args:
        recipe: of the comparison.
        number: of the unit, from 0.
        folder: of the unit.
        arms: the arms that will run on it.
        ratios: of their masks.
    """
    own, asked = unit_recipe(recipe, number), recipe.attribution
    collected = {
        "mask": None,
        "score": "random",  # adds nothing to the named quantities
        "quantities": arm_quantities(arms, asked),
    }
    unlearning = own.unlearning.model_copy(update={"lora": None})  # LoRA is an arm here
    measured = own.model_copy(
        update={"attribution": asked.model_copy(update=collected), "unlearning": unlearning}
    )
    run = execute(measured, folder, until="teach")
    return Unit(number, run, arms[0], ratios, asked, recipe.unlearning.lora or Lora())
