"""What others may see of a recipe: names instead of paths, and nothing given record by record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wagle.evaluation.figures import SETS
from wagle.recipe.recipe import Recipe


def last(path: str) -> str:
    """The last part of a path: where a model is stored is nobody's business."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


class Shortener:
    """Cuts absolute paths in a text to ``…/NAME``: those of the recipe, and what looks like one."""

    _looks = re.compile(r"(?<![\w.~:/\\-])(?:~|[A-Za-z]:)?(?:[\\/][^\s'\"\\/<>,;:()\[\]{}]+){2,}")

    def __init__(self, recipe: Recipe) -> None:
        found = [
            recipe.model.path,
            recipe.model.adapter,
            recipe.after,
            recipe.reference,
            recipe.attribution.mask,
        ]
        sets = [getattr(recipe, name) for name in SETS]
        sets.append(recipe.finetune.records if recipe.finetune else None)
        for asked in sets:
            if asked is not None:
                found += [asked.source] if isinstance(asked.source, str) else asked.source
        absolute = {path for path in found if path and re.match(r"[\\/~]|[A-Za-z]:[\\/]", path)}
        self.paths = sorted(absolute, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for path in self.paths:
            text = text.replace(path, f"…/{last(path)}")
        return self._looks.sub(lambda found: f"…/{last(found[0])}", text)


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's settings as others may see them: what is given record by record is counted."""
    return {
        key: f"of {len(value)} records" if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }


def public_recipe(recipe: Recipe) -> Recipe:
    """The recipe without what its attacks are given record by record, unless ``show_text``."""
    if recipe.report.show_text:
        return recipe
    attacks = [one.model_copy(update={"settings": public(one.settings)}) for one in recipe.attacks]
    return recipe.model_copy(update={"attacks": attacks})
