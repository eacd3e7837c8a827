"""What a stranger may see of a run: settings and figures, without paths and without texts.

Nothing here depends on whether a path exists: a recipe is reduced to the same text before and after
the run, so that its digest can be committed to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from wagle.data.reading import READERS
from wagle.evaluation.figures import SETS
from wagle.recipe.recipe import MADE, Recipe
from wagle.recipe.syntax import Dumper
from wagle.report.disclosure import Shortener, last, public

_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/name
_KEPT = ("complement", *MADE)
_PRIVATE = ("answers",)  # keys of an evaluation that say where private files are


def reduced_recipe(recipe: Recipe) -> str:
    """All settings as YAML: names instead of paths, nothing that is given record by record."""
    found = recipe.resolved()
    for attack in found["attacks"]:
        attack["settings"] = public(attack["settings"])
    places = [(found["model"], "path"), (found["model"], "adapter")]
    places += [(found, "after"), (found, "reference"), (found["attribution"], "mask")]
    sets = [found[name] for name in SETS]
    sets.append(found["finetune"]["records"] if found["finetune"] else None)
    places += [(asked, "source") for asked in sets if asked]
    for where, key in places:
        where[key] = _name(where[key])
    short = shortened(found, Shortener(recipe))
    text: str = yaml.dump(short, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    return text


def _name(path: Any) -> Any:
    """A path's last part; names of demo sets, of hub repositories and of made models stay."""
    if isinstance(path, list):
        return [_name(one) for one in path]
    if path is None or path in _KEPT or path.startswith("demo:"):
        return path
    hub = _HUB.fullmatch(path) and not path.endswith(tuple(READERS))
    return path if hub else last(path)


def shortened(value: Any, shorten: Shortener) -> Any:
    """A JSON value whose texts name no absolute path."""
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, Mapping):
        return {key: shortened(one, shorten) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(one, shorten) for one in value]
    return value


def reduced_result(found: Any, shorten: Shortener) -> Any:
    """An evaluation or an attack's result, without what points into the private folder."""
    if isinstance(found, Mapping):
        found = {key: one for key, one in found.items() if key not in _PRIVATE}
    return shortened(found, shorten)
