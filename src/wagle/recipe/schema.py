"""The JSON schema of recipes, for editors: what a file may hold, with the meaning of every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wagle.recipe.page import fill_names
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import Section

FILE = "recipe.schema.json"  # beside the ready recipes, and in docs/


def recipe_schema(names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The schema, as JSON.

    Args:
        names: for every placeholder in a field's text, the names that replace it, in order.
    """
    found: dict[str, Any] = _filled(Recipe.model_json_schema(mode="validation"), names)
    sections = {one.__name__: one for one in _sections(Section)}
    for name, own in found["$defs"].items():
        section = sections.get(name)
        if section is None:
            continue
        short = [{"type": "string"}] if section.bare else []
        needs = any(field.is_required() for field in section.model_fields.values())
        empty = [] if needs else [{"type": "null"}]
        if short or empty:
            found["$defs"][name] = {
                "description": own.pop("description", ""),
                "anyOf": [own, *short, *empty],
            }
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wagle recipe",
    }
    return {**head, **{key: value for key, value in found.items() if key != "title"}}


def _sections(of: type[Section]) -> list[type[Section]]:
    return [one for child in of.__subclasses__() for one in (child, *_sections(child))]


def _filled(value: Any, names: Mapping[str, Sequence[str]]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: fill_names(inner, names)
            if key == "description" and isinstance(inner, str)
            else _filled(inner, names)
            for key, inner in value.items()
        }
    return [_filled(inner, names) for inner in value] if isinstance(value, list) else value
