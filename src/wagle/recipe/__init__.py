"""The recipe: one typed file that describes one run completely."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.recipe.reading import load_recipe as load_recipe
    from wagle.recipe.reading import ready_recipes as ready_recipes
    from wagle.recipe.recipe import Recipe as Recipe

# Where each public name lives; the module is imported on first use.
_HOME = {
    "Recipe": "recipe",
    "load_recipe": "reading",
    "ready_recipes": "reading",
}
__all__ = ["Recipe", "load_recipe", "ready_recipes"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle.recipe' has no attribute {name!r}")
    return getattr(import_module(f"wagle.recipe.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
