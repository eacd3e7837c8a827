"""Which recipe and run folder a command refers to, found without heavy imports."""

from __future__ import annotations

from pathlib import Path

from wagle.recipe.reading import load_recipe, ready_recipes
from wagle.recipe.recipe import Recipe
from wagle.system.errors import WagleError
from wagle.system.plugins import allow_code


def find_run(source: str, overrides: list[str], out: str | None) -> tuple[Recipe, Path]:
    """The recipe and the run folder that a command's argument, either of the two, stands for."""
    option = next((one for one in overrides if one.startswith("-")), None)
    if option is not None:
        raise WagleError(f"there is no option {option}; settings are written as KEY=VALUE")
    recipe, home = _find(source, overrides, out)
    if recipe.allow_code:
        allow_code()
    return recipe, home


def _find(source: str, overrides: list[str], out: str | None) -> tuple[Recipe, Path]:
    folder = Path(source)
    if (folder / "recipe.yaml").is_file():
        if source in ready_recipes():
            raise WagleError(
                f"{source} is both a ready recipe and a run here; write bundled:{source} for the "
                f"recipe, ./{source} for the run"
            )
        if overrides or out:
            raise WagleError(f"{source} is a run; give settings and --out with a recipe only")
        return load_recipe(folder / "recipe.yaml"), folder
    recipe = load_recipe(source, overrides)
    return recipe, Path(out) if out else Path("runs") / recipe.name
