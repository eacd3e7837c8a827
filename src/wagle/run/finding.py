"""Which recipe and which run folder a command means; nothing heavy is imported to say so."""

from __future__ import annotations

from pathlib import Path

from wagle.recipe.reading import load_recipe
from wagle.recipe.recipe import Recipe
from wagle.system.errors import WagleError


def find_run(source: str, overrides: list[str], out: str | None) -> tuple[Recipe, Path]:
    """The recipe and the run folder of what a command was given: a recipe or a run folder."""
    folder = Path(source)
    if (folder / "recipe.yaml").is_file():
        if overrides or out:
            raise WagleError(f"{source} is a run; settings and --out go with a recipe")
        return load_recipe(folder / "recipe.yaml"), folder
    recipe = load_recipe(source, overrides)
    return recipe, Path(out) if out else Path("runs") / recipe.name
