"""The page of settings, made from the fields of the recipe."""

from __future__ import annotations

import json

from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import Section, item_of, section_of
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.values import plain


def settings_page() -> str:
    """Every setting with its default and its meaning, as Markdown: the page docs/recipe.md."""
    lines = [
        "# Settings of a recipe",
        "",
        "Made from the fields of `wagle.recipe` by `make docs/recipe.md`. A setting on the command line:",
        "`wagle run RECIPE attribution.ratio=0.1`. Paths are relative to the current folder.",
    ]
    lines += _settings_table("recipe", Recipe)
    for name, field in Recipe.model_fields.items():
        section = section_of(field.annotation)
        if section is not None and section is not RecordSet:
            lines += _settings_table(name, section)
            for key, inner in section.model_fields.items():
                own = section_of(inner.annotation)
                if own is not None and own is not RecordSet:
                    lines += _settings_table(f"{name}.{key}", own)
                each = item_of(inner.annotation)
                if each is not None:
                    lines += _settings_table(f"{name}.{key}, each", each)
        each = item_of(field.annotation)
        if each is not None:
            lines += _settings_table(f"{name}, each", each)
    lines += _settings_table("forget, retain, retain_heldout, general, holdout", RecordSet)
    return "\n".join(lines) + "\n"


def _settings_table(title: str, section: type[Section]) -> list[str]:
    lines = ["", f"## {title}", ""]
    if section is not Recipe and section.__doc__:
        lines += [" ".join(section.__doc__.split()), ""]
    lines += ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if field.is_required():
            default = "required"
        elif inner is not None and field.default is not None:
            default = "its section"
        else:
            default = f"`{json.dumps(plain(field.default))}`"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return lines
