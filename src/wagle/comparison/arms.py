"""Arms: the choices of weights that a comparison compares.

An arm is a score, a mask derived from the first arm's (``random_like``, ``complement``), all
weights (``dense``), or an adapter instead of the model's own weights (``lora``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.masks import needed_quantities
from wagle.attribution.scoring.ratios import read_ladder
from wagle.attribution.scoring.scores import SCORES
from wagle.attribution.store import GradientStore
from wagle.mask.mask import Mask
from wagle.recipe.rules import OF_MASK
from wagle.recipe.sections.attribution import Attribution
from wagle.system.errors import WagleError, choose

CONTROL = "random"  # the arm that all others are compared with
OF_FIRST = OF_MASK  # derived from the first arm's mask
WITHOUT_RATIO = ("dense", "lora")
ARMS = dict.fromkeys((*sorted(SCORES), *OF_FIRST, *WITHOUT_RATIO))


class Cell(NamedTuple):
    """An arm at one ratio: it is tuned once and run once per unit."""

    arm: str
    ratio: float | None

    @property
    def name(self) -> str:
        """Its name in files and messages: ``wagle@0.05``, ``dense``."""
        return self.arm if self.ratio is None else f"{self.arm}@{self.ratio:g}"


def read_arms(names: Sequence[str]) -> list[str]:
    """Check a comparison's arms: known, without repeats, with the control and a usable first arm.

    Raises:
        WagleError: they are not; the message says what is wrong.
    """
    for i, name in enumerate(names):
        choose(ARMS, name, "arm")
        if name in names[:i]:
            raise WagleError(f"the arm {name} is given twice; remove one")
    if CONTROL not in names:
        raise WagleError(
            f"the arms {', '.join(names)} do not include {CONTROL}, with which all others are "
            f"compared; add {CONTROL}"
        )
    if len(names) < 2:
        raise WagleError(f"{CONTROL} alone is not a comparison; add another arm")
    made = [name for name in names if name in OF_FIRST]
    if made and names[0] not in SCORES:
        raise WagleError(
            f"{made[0]} refers to the mask of the first arm, but {names[0]} has none; name a score "
            "first"
        )
    return list(names)


def read_ratios(ratios: Sequence[float | str]) -> list[float]:
    """Check ratios, given in any order: each in (0, 1], without repeats."""
    try:
        return [float(ratio) for ratio in read_ladder(sorted(ratios, key=float))]
    except ValueError:
        given = ", ".join(map(str, ratios))
        raise WagleError(f"the ratios {given} are not all numbers; write 0.05,0.5") from None


def cells_of(arms: Sequence[str], ratios: Sequence[float]) -> list[Cell]:
    """All cells, ratio by ratio; an arm without a ratio appears once, at the end."""
    with_ratio = [Cell(arm, r) for r in ratios for arm in arms if arm not in WITHOUT_RATIO]
    return with_ratio + [Cell(arm, None) for arm in arms if arm in WITHOUT_RATIO]


def arm_quantities(arms: Sequence[str], settings: Attribution) -> list[str]:
    """What one gradient store must hold for all arms."""
    wanted = {
        quantity
        for arm in arms
        if arm in SCORES
        for quantity in needed_quantities(arm, settings.gamma)
    }
    return [quantity for quantity in COLLECTED if quantity in wanted]


@dataclass(frozen=True)
class ArmMasks:
    """The masks of one unit, made from its gradient store on demand and kept as files.

    Attributes:
        store: the unit's gradients.
        folder: where the ladders are kept.
        first: the arm whose mask ``random_like`` and ``complement`` refer to.
        ratios: of every ladder.
        settings: gamma, damping, scope and candidates, as in the recipe. Score settings apply only
            to the recipe's own score.
        seed: of random scores.
    """

    store: GradientStore
    folder: Path
    first: str
    ratios: Sequence[float]
    settings: Attribution
    seed: int

    def of(self, cell: Cell) -> Mask | None:
        """The mask of a cell; None if it has no ratio.

        A complement has the ratio that the first arm's mask leaves out, not the cell's.
        """
        if cell.ratio is None:
            return None
        if cell.arm == "complement":
            return self._ladder(self.first).at(cell.ratio).complement()
        return self._ladder(cell.arm).at(cell.ratio)

    def _ladder(self, arm: str) -> Mask:
        path = self.folder / f"{arm}.safetensors"
        if not path.is_file():
            self._make(arm).save(path)
        return Mask.load(path)

    def _make(self, arm: str) -> Mask:
        asked = self.settings
        if arm == "random_like":
            return Mask.from_scores(
                self.store, score={arm: self._ladder(self.first)}, seed=self.seed
            )
        own: dict[str, Any] = asked.score_settings if arm == asked.score else {}
        return Mask.from_scores(
            self.store,
            score=arm,
            gamma=asked.gamma,
            damping=asked.damping,
            settings=own,
            ratio=self.ratios,
            scope=asked.scope,
            include=asked.include,
            exclude=asked.exclude,
            seed=self.seed,
        )
