"""Does the mask help? The same unlearning with several arms, over freshly taught units.

Order of the work, one unit on disk at a time: teach it; take its gradients once for all arms; on
unit 0 tune the learning rate of every arm; run every arm; delete the model. Every trial and run is
saved as soon as it is complete, so a killed comparison resumes where it was.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wagle.attribution.scoring.masks import DEFAULT_RATIO
from wagle.comparison.arms import CONTROL, Cell, cells_of, read_arms, read_ratios
from wagle.comparison.results import Found, summarise
from wagle.comparison.runs import count_steps, heldout_tokens, look_at_reference, run_arm
from wagle.comparison.tuning import Tuned, check_optuna, learning_rates, trial_store, tune
from wagle.comparison.units import Unit, forget_set_varies, make_unit, unit_recipe
from wagle.recipe.recipe import NO_REFERENCE, Recipe
from wagle.recipe.sections.unlearning import Lora
from wagle.report.html.comparison import write_comparison
from wagle.run.checks import check_attribution, check_folder, check_unlearning, structure_of
from wagle.run.environment import environment
from wagle.run.opening import Run
from wagle.system.errors import WagleError
from wagle.system.files.atomic import locked, write_json
from wagle.system.files.reading import read_json
from wagle.unlearning.objectives.choice import choose_objective

logger = logging.getLogger(__name__)
FORMAT = "wagle-compare/1"


def compare_arms(
    recipe: Recipe,
    arms: Sequence[str],
    folder: str | Path | None = None,
    *,
    ratios: Sequence[float | str] | None = None,
    units: int = 5,
    trials: int = 4,
    steps: int | None = None,
    keep_models: bool = False,
) -> dict[str, Any]:
    """Run every arm on every unit and say how the arms differ from a random mask.

    Args:
        recipe: what to teach and how to unlearn; its own mask is not used.
        arms: scores, ``random_like``, ``complement``, ``dense``, ``lora``; ``random`` among them.
        folder: of the comparison; None takes ``runs/NAME-compare``. The same comparison resumes
            there, even with more units.
        ratios: of the masks; None takes the recipe's.
        units: how many models to teach, at least 1; with fewer than 5 the result is only a hint.
        trials: how many learning rates to try for every arm, on unit 0.
        steps: of every run; None takes the recipe's.
        keep_models: keep the taught models, gradients and masks in the folder.

    Returns:
        What ``comparison.json`` holds; ``comparison.html`` shows it.

    Raises:
        WagleError: the recipe or arms cannot be compared, or the folder holds another comparison.
    """
    check_optuna()
    for name, value in (("units", units), ("trials", trials), ("steps", steps)):
        if value is not None and value < 1:
            raise WagleError(f"{name} is {value}; it must be at least 1")
    arms = read_arms(arms)
    asked = recipe.attribution.ratio
    chosen = ratios or (
        asked if isinstance(asked, list) else [DEFAULT_RATIO if asked is None else asked]
    )
    place = Path(folder) if folder else Path("runs") / f"{recipe.name}-compare"
    comparison = Comparison(
        recipe, arms, read_ratios(chosen), place, units, trials, steps, keep_models
    )
    comparison.check()
    with locked(place):
        comparison.claim()
        return comparison.run()


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder and request; the fields are those of ``compare_arms``."""

    recipe: Recipe
    arms: list[str]
    ratios: list[float]
    folder: Path
    units: int
    trials: int
    given_steps: int | None
    keep_models: bool

    # ----- what is asked -----

    @cached_property
    def cells(self) -> list[Cell]:
        """Every arm at every ratio."""
        return cells_of(self.arms, self.ratios)

    @property
    def _has_reference(self) -> bool:
        """Whether there is one: a model retrained without one forget set cannot serve another."""
        named = self.recipe.reference
        if named in (
            None,
            NO_REFERENCE,
            "retrained",
        ):  # teaching every unit twice is another experiment
            return False
        return named == "untaught" or not forget_set_varies(self.recipe)

    @cached_property
    def steps(self) -> int:
        """Of every run."""
        return self.given_steps or count_steps(self._reader(0))

    def check(self) -> None:
        """Report what is missing before any long work rather than after it."""
        settings = self.recipe.unlearning
        chosen = choose_objective(
            settings.objective, settings.objective_settings, settings.retain_term
        )
        if not chosen.sets or settings.wrapper == "task_vector":
            what = settings.wrapper if chosen.sets else f"objective {settings.objective}"
            raise WagleError(f"{what} has no intermediate steps to compare; choose another")
        units = [self._reader(number) for number in range(self.units)]
        model = structure_of(units[0])
        check_folder(units[0])
        check_attribution(units[0], model)
        for run in units:
            heldout_tokens(run)
            check_unlearning(run, model)
            for records in run.inputs.sets.values():
                run.inputs.encoder.encode(records)
        if "lora" in self.arms:
            self._check_lora()

    def _check_lora(self) -> None:
        """The arm trains the whole adapter that the recipe describes, on the model as it is."""
        lora = self.recipe.unlearning.lora or Lora()
        for key in ("masked", "quantize"):
            if getattr(lora, key) != Lora.model_fields[key].default:
                raise WagleError(
                    f"unlearning.lora.{key} does not work with the arm lora, which trains a whole "
                    "adapter on the model as it is; remove it"
                )
        run = self._reader(0, lora)
        check_unlearning(run, structure_of(run))

    def claim(self) -> None:
        """Record what is compared; another comparison in the folder is an error."""
        plan = {
            "format": FORMAT,
            "arms": self.arms,
            "ratios": self.ratios,
            "trials": self.trials,
            "steps": self.steps,
            **{f"recipe.{key}": value for key, value in self.recipe.resolved().items()},
        }
        plan = json.loads(json.dumps(plan))
        path = self.folder / "plan.json"
        if path.is_file():
            before = read_json(path)
            for key in {**before, **plan}:
                if before.get(key) != plan.get(key):
                    raise WagleError(
                        f"{self.folder} holds another comparison ({key} differs); choose another "
                        "folder with --out, or delete this one"
                    )
            return
        if any(file.name != ".lock" for file in self.folder.iterdir()):
            raise WagleError(
                f"{self.folder} exists and is not a comparison; choose another folder with --out"
            )
        write_json(path, plan)

    def _reader(self, number: int, lora: Lora | None = None) -> Run:
        """The records of a unit, readable without its folder, under the recipe of an arm."""
        recipe = unit_recipe(self.recipe, number)
        asked = recipe.attribution
        score = {} if asked.score in self.arms else {"score": CONTROL, "score_settings": {}}
        without: dict[str, Any] = {"stop_when": [], "best": None, "lora": lora}
        changed = {
            "attribution": asked.model_copy(update={"mask": None, **score}),
            "unlearning": recipe.unlearning.model_copy(update=without),
        }
        return Run(self._unit_folder(number), recipe.model_copy(update=changed))

    # ----- what is done -----

    def run(self) -> dict[str, Any]:
        """Do what is missing, unit by unit; the page is rewritten after each."""
        found: dict[str, Any] = {}
        with trial_store(self.folder / "study.db") as storage:
            tuned: dict[Cell, Tuned] = {}
            for number in range(self.units):
                unit = _Lazily(self, number)
                if number == 0:
                    tuned = {cell: self._tune(storage, cell, unit) for cell in self.cells}
                for cell in self.cells:
                    self._run(cell, unit, tuned[cell].learning_rate)
                self._reference(unit)
                unit.close()
                found = self._write(tuned, number + 1)
        return found

    def _tune(self, storage: Any, cell: Cell, unit: _Lazily) -> Tuned:
        grid = learning_rates(self.recipe.unlearning.learning_rate, self.trials)

        def trial(rate: float) -> dict[str, Any]:
            logger.info("unit 0, tuning %s: learning rate %.2g", cell.name, rate)
            return run_arm(unit.open(), cell, learning_rate=rate, steps=self.steps, tuning=True)

        return tune(storage, cell, grid, trial)

    def _run(self, cell: Cell, unit: _Lazily, rate: float) -> None:
        path = self._file(cell.name, unit.number)
        if not path.is_file():
            logger.info(
                "unit %d of %d, %s: learning rate %.2g", unit.number, self.units, cell.name, rate
            )
            found = run_arm(unit.open(), cell, learning_rate=rate, steps=self.steps)
            write_json(path, {"arm": cell.arm, "ratio": cell.ratio, "unit": unit.number, **found})

    def _reference(self, unit: _Lazily) -> None:
        path = self._file("reference", unit.number)
        if self._has_reference and not path.is_file():
            write_json(path, look_at_reference(unit.open()))

    def _write(self, tuned: Mapping[Cell, Tuned], done: int) -> dict[str, Any]:
        runs = {
            cell: [read_json(self._file(cell.name, number)) for number in range(done)]
            for cell in self.cells
        }
        reference = None
        if self._has_reference:
            reference = [read_json(self._file("reference", number)) for number in range(done)]
        found = summarise(self.recipe, Found(runs, tuned, reference), trials=self.trials)
        found = {"format": FORMAT, **found, "steps": self.steps, "environment": _versions()}
        write_json(self.folder / "comparison.json", found)
        write_comparison(found, self.folder / "comparison.html")
        return found

    def _file(self, name: str, number: int) -> Path:
        return self.folder / "runs" / name / f"unit-{number}.json"

    def _unit_folder(self, number: int) -> Path:
        return self.folder / "units" / str(number)


class _Lazily:
    """A unit that is taught when first needed, and not at all if its runs are all done."""

    def __init__(self, comparison: Comparison, number: int) -> None:
        self.comparison, self.number = comparison, number
        self._unit: Unit | None = None

    def open(self) -> Unit:
        """The unit, taught now if it does not exist."""
        if self._unit is None:
            asked = self.comparison
            folder = asked._unit_folder(self.number)
            self._unit = make_unit(asked.recipe, self.number, folder, asked.arms, asked.ratios)
        return self._unit

    def close(self) -> None:
        """Delete what is large, unless it should be kept."""
        self._unit = None
        if not self.comparison.keep_models:
            shutil.rmtree(self.comparison._unit_folder(self.number), ignore_errors=True)


def _versions() -> dict[str, Any]:
    """The part of the environment that determines the figures and must not change in between."""
    names = ("wagle", "python", "torch", "transformers", "platform", "processors", "threads")
    found = environment()
    return {name: found[name] for name in names}
