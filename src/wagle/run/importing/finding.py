"""What a command's arguments are: a config of another project, a recipe, or a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wagle.recipe.published.command import find_command
from wagle.recipe.published.imported import Imported, Needed, Places
from wagle.recipe.reading import load_recipe, overridden
from wagle.recipe.recipe import Recipe
from wagle.run.finding import find_run
from wagle.run.importing.masks import make_mask
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)

MODEL, DATA = "WAGLE_MODEL", "WAGLE_DATA"  # say where things are, if no option does


@dataclass(frozen=True)
class Asked:
    """What a command says about an import.

    Attributes:
        corrected: leave out what imitates a published defect.
        model: the model folder.
        data: the folder of the data sets.
        processes: how many processes the published code would run with.
    """

    corrected: bool = False
    model: str | None = None
    data: str | None = None
    processes: int = 1

    def places(self) -> Places:
        """Where models and records are: as asked, else as the environment says."""
        return Places(
            self.model or os.environ.get(MODEL),
            self.data or os.environ.get(DATA),
            os.path.exists,
        )


@dataclass(frozen=True)
class Found:
    """An imported config.

    Attributes:
        made: what the import made.
        recipe: the recipe, with the settings that were given besides.
        missing: what it reads that is not there.
    """

    made: Imported
    recipe: Recipe
    missing: list[Needed]


def find_import(arguments: Sequence[str], asked: Asked) -> Found | None:
    """The config that arguments stand for; None if they are a recipe or a run of wagle's own.

    Raises:
        WagleError: something in it has no counterpart, or an option has nothing to act on.
    """
    command = find_command(arguments)
    if command is None:
        given = {
            "--corrected": asked.corrected,
            "--model": asked.model,
            "--data": asked.data,
            "--processes": asked.processes != 1,
        }
        for name in (name for name, value in given.items() if value):
            raise WagleError(
                f"{name} goes with a config of another project; write settings as KEY=VALUE"
            )
        return None
    made = command.read(corrected=asked.corrected, places=asked.places(), processes=asked.processes)
    made = replace(made, recipe=overridden(made.recipe, command.own))
    recipe = load_recipe(made.recipe)
    missing = [one for one in made.notes.needed if not os.path.exists(one.path)]
    if made.mask is not None and os.path.exists(made.mask.path):
        missing = [one for one in missing if one.path != made.mask.published]
    return Found(made, recipe, missing)


def prepare(found: Found) -> None:
    """Make the mask file that an imported recipe names, and refuse what is not there.

    Raises:
        WagleError: the model, records or a mask are missing; the message says what the published
            code would have fetched.
    """
    if found.missing:
        one = found.missing[0]
        more = len(found.missing) - 1
        rest = (
            ""
            if not more
            else f" (and {more} more: {', '.join(x.path for x in found.missing[1:])})"
        )
        raise WagleError(
            f"{one.path} does not exist; the published code fetches {one.fetched}: {one.remedy}{rest}"
        )
    if found.made.mask is not None:
        make_mask(found.made.mask, found.recipe.model.path)


def find_any(
    source: str, overrides: Sequence[str], out: str | None, asked: Asked | None = None
) -> tuple[Recipe, Path, list[str]]:
    """The recipe and the run folder of a command's arguments, and what to say with the run.

    Args:
        source: a recipe, a run folder, or the beginning of a config of another project.
        overrides: the further arguments.
        out: the run folder that was asked for.
        asked: what the command says about an import.
    """
    found = find_import([source, *overrides], asked or Asked())
    if found is None:
        return *find_run(source, list(overrides), out), []
    prepare(found)
    for line in found.made.notes.left_out:
        logger.info("no counterpart: %s", line)
    folder = Path(out) if out else Path("runs") / found.recipe.name
    return found.recipe, folder, found.made.lines(left_out=False)
