"""Recipe files: YAML and dotted overrides to a recipe, and back.

Relative paths inside a recipe are taken from the current folder, not from that of its file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from wagle.recipe.problems import explain
from wagle.recipe.recipe import MADE, NO_REFERENCE, Recipe
from wagle.recipe.sections.base import Section, section_of
from wagle.recipe.syntax import LARGEST, Dumper, parse_yaml
from wagle.recipe.values import MADE_SOURCES, shown
from wagle.system.errors import WagleError, nearest
from wagle.system.files.reading import one_line, read_text

_OF_OBJECTIVE = ("objective_settings", "retain_term")
BUNDLED = "bundled:"  # before the name of a ready recipe, or of a model that comes with a package


def dump_recipe(recipe: Recipe) -> str:
    """YAML of all settings of ``recipe``; ``load_recipe`` reads it back to an equal recipe."""
    return yaml.dump(
        recipe.resolved(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**9
    )


def ready_texts() -> dict[str, str]:
    """The text of each ready recipe by its name."""
    folder = files("wagle").joinpath("recipes")
    entries = [e for e in folder.iterdir() if e.name.endswith(".yaml")] if folder.is_dir() else []
    return {e.name.removesuffix(".yaml"): e.read_text(encoding="utf-8") for e in entries}


def ready_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(ready_texts())


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    base: Path | None = None,
) -> Recipe:
    """Read a recipe and check all of it before anything is loaded.

    Args:
        source: the name of a ready recipe (``demo`` or ``bundled:demo``), the path of a YAML file,
            or a dict.
        overrides: settings that override the source's, such as ``attribution.ratio=0.5``; the value
            is YAML, and an empty one is null. Another ``unlearning.objective`` leaves out the
            source's ``objective_settings`` and ``retain_term``, which belong to its own.
        base: resolve relative paths inside the recipe against this folder; None leaves them
            relative to the current one.

    Raises:
        WagleError: no such recipe, bad YAML, or a setting that does not exist or does not fit: one
            line that names the key.
    """
    where, data = _read(source)
    data = overridden(data, overrides)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise WagleError(f"{where}: {explain(error, data)}") from None
    except RecursionError:
        raise WagleError(f"{where} is nested too deeply, or holds itself") from None
    return recipe if base is None else _rebased(recipe, base)


def overridden(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a recipe as written, with those of ``overrides`` in their place."""
    found, pairs = dict(data), list(_pairs(overrides))
    _drop_of_objective(found, dict(pairs).get("unlearning.objective"))
    for key, value in pairs:
        _set(found, key, value)
    return found


def read_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Settings of something other than a recipe, such as a benchmark: ``split=forget10``."""
    return dict(_pairs(overrides))


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise WagleError(f"override {override!r} has no value; write {key or 'KEY'}=VALUE")
        if not all(key.split(".")):
            raise WagleError(
                f"override {override!r} names no setting; write it like attribution.ratio=0.5"
            )
        yield key, parse_yaml(text, f"override {override!r}")


def _read(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What messages call the recipe, and its settings as written."""
    if isinstance(source, Mapping):
        return "recipe", dict(source)
    where, ready = str(source), ready_texts()
    name = where.removeprefix(BUNDLED)
    if isinstance(source, str) and name in ready:
        text = ready[name]
    else:
        path, where = Path(source), one_line(source)
        if os.path.isdir(path):
            raise WagleError(f"{where} is a folder; give the recipe file in it")
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            guess = nearest(path.stem, ready)
            hint = f"; nearest: {guess}" if guess else ""
            known = f" (known: {', '.join(sorted(ready))})" if ready else ""
            raise WagleError(
                f"no file {where} exists, and no ready recipe has that name{hint}{known}"
            ) from None
        except (OSError, ValueError):
            pass  # reading it says what is wrong
        text = read_text(path, most=4 * LARGEST)
    data = parse_yaml(text, where)
    if data is None:
        raise WagleError(f"{where} is empty; a recipe needs at least name and model")
    if not isinstance(data, dict):
        raise WagleError(f"{where} holds {shown(data)}; a recipe is a mapping, such as name: demo")
    return where, data


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c``, turning sections that are absent, null or plain text into mappings."""
    here = data
    section: type[Section] | None = Recipe
    *parents, last = key.split(".")
    for name in parents:
        field = section.model_fields.get(name) if section else None
        section = section_of(field.annotation) if field else None
        inner = here.get(name)
        if isinstance(inner, str) and section and section.bare:
            inner = {section.bare: inner}
        here[name] = dict(inner) if isinstance(inner, Mapping) else {}
        here = here[name]
    here[last] = value


def _drop_of_objective(data: dict[str, Any], other: Any) -> None:
    """Leave out what belongs to a recipe's objective if another one replaces it."""
    own = data.get("unlearning")
    if other is not None and isinstance(own, Mapping) and own.get("objective", other) != other:
        data["unlearning"] = {k: v for k, v in own.items() if k not in _OF_OBJECTIVE}


def _rebased(recipe: Recipe, base: Path) -> Recipe:
    """``recipe`` with its relative paths taken from ``base``."""
    data = recipe.resolved()

    def move(section: dict[str, Any] | None, key: str, *words: str) -> None:
        given = section[key] if section else None
        moved = [
            one if one in words or one.startswith(("demo:", BUNDLED)) else str(base / one)
            for one in ([given] if isinstance(given, str) else given or [])
        ]
        if section and moved:
            section[key] = moved[0] if isinstance(given, str) else moved

    move(data["model"], "path", "demo")
    move(data["model"], "adapter")
    move(data, "after")
    move(data, "reference", "demo", *MADE, NO_REFERENCE)
    move(data["attribution"], "mask")
    if isinstance(data["attribution"]["score"], dict):
        for kind in {"random_like", "complement"} & set(data["attribution"]["score"]):
            move(data["attribution"]["score"], kind)
    for name in ("forget", "retain", "retain_heldout", "general", "holdout"):
        move(data[name], "source", "complement", *MADE_SOURCES)
    move((data["finetune"] or {}).get("records"), "source")
    return Recipe.model_validate(data)
