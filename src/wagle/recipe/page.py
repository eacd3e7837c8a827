"""The page of settings, generated from the fields of the recipe.

Where a field's text would list the names in a table, it holds a placeholder such as ``{scores}``:
the recipe lies below the tables and cannot import them, so the caller passes their names in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import Section, item_of, section_of
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.values import plain

_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")


def settings_page(names: Mapping[str, Sequence[str]]) -> str:
    """Every setting with its default and its meaning, as Markdown: the page docs/recipe.md.

    Args:
        names: for every placeholder in a field's text, the names that replace it, in order.
    """
    lines = [
        "# Settings of a recipe",
        "",
        "Generated from the fields of `wagle.recipe` by `make pages`. To set one on the",
        "command line: `wagle run RECIPE attribution.ratio=0.1`. Paths are relative to the current folder.",
    ]
    for title, section in sections_of_page():
        lines += _settings_table(title, section, names)
    return "\n".join(lines) + "\n"


def sections_of_page() -> Iterator[tuple[str, type[Section]]]:
    """The sections in page order, each with its title; record sets share one at the end."""
    yield "recipe", Recipe
    for name, field in Recipe.model_fields.items():
        section = section_of(field.annotation)
        if section is not None and section is not RecordSet:
            yield name, section
            for key, inner in section.model_fields.items():
                own, each = section_of(inner.annotation), item_of(inner.annotation)
                if own is not None and own is not RecordSet:
                    yield f"{name}.{key}", own
                if each is not None:
                    yield f"{name}.{key}, each", each
        each = item_of(field.annotation)
        if each is not None:
            yield f"{name}, each", each
    yield "forget, retain, retain_heldout, general, holdout", RecordSet


def _settings_table(
    title: str, section: type[Section], names: Mapping[str, Sequence[str]]
) -> list[str]:
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
        meaning = fill_names(field.description or "", names).replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return lines


def fill_names(text: str, names: Mapping[str, Sequence[str]]) -> str:
    """A field's text on one line, with each ``{table}`` replaced by that table's names."""
    listed = _PLACEHOLDER.sub(lambda found: ", ".join(names[found[1]]), text)
    return " ".join(listed.split())
