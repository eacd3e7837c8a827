"""Recipe files: YAML and dotted overrides -> a recipe; whatever is wrong, in one line.

Relative paths inside a recipe are taken from the current folder, not from that of its file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wagle.errors import WagleError, nearest
from wagle.recipe import MADE, Recipe, RecordSet, Section, item_of, section_of
from wagle.recipe_values import plain, shown


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


# ---------------------------------------------------------------------------------------------
# YAML


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's, without the traps of YAML 1.1: 1e-5 is a number; 20:40, 010 and dates are text."""
    traps = ("int", "float", "timestamp")
    table = {
        first: [(tag, form) for tag, form in known if not tag.endswith(traps)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    )
    whole = r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)"
    for kind, form in (("float", number), ("int", whole)):
        for first in "-+.0123456789":
            entry = f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{form})$")
            table.setdefault(first, []).append(entry)
    return table


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    """Quotes what either this loader or a YAML 1.1 loader would not read as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: _Loader.yaml_implicit_resolvers.get(first, []) + known
        for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape line breaks: in its other styles PyYAML 6.0 turns U+0085 and U+2028 into newlines."""
    style = None if text.splitlines() in ([], [text]) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _dump_text)


def _parse(text: str, where: str) -> Any:
    """Read YAML; bad syntax and keys that stand twice are one-line errors."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeats(node, where, "", set())
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark and "\n" in text else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if isinstance(error, RecursionError):
            problem = "it is nested too deeply"
        if "alias" in f"{getattr(error, 'context', '')} {problem}":
            problem += "; put text that begins with * in quotes"
        raise WagleError(f"{where}{line} is not valid YAML ({' '.join(problem.split())})") from None


def _refuse_repeats(node: yaml.Node, where: str, path: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, inner in enumerate(node.value):
            _refuse_repeats(inner, where, f"{path}[{i}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, inner in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        full = f"{path}.{name}" if path else name
        if name in lines and isinstance(key, yaml.ScalarNode):
            raise WagleError(
                f"{where}: {full} is set twice (lines {lines[name]} and {line}); keep one"
            )
        lines[name] = line
        _refuse_repeats(inner, where, full, seen)


def dump_recipe(recipe: Recipe) -> str:
    """YAML of all settings of ``recipe``; ``load_recipe`` reads it back to an equal recipe."""
    return yaml.dump(
        recipe.resolved(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9
    )


# ---------------------------------------------------------------------------------------------
# Loading


def _ready() -> dict[str, str]:
    """The text of each ready recipe by its name."""
    folder = files("wagle").joinpath("recipes")
    entries = [e for e in folder.iterdir() if e.name.endswith(".yaml")] if folder.is_dir() else []
    return {e.name.removesuffix(".yaml"): e.read_text(encoding="utf-8") for e in entries}


def ready_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(_ready())


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    base: Path | None = None,
) -> Recipe:
    """Read a recipe and check all of it before anything is loaded.

    Args:
        source: the name of a ready recipe (``demo``), the path of a YAML file, or a dict.
        overrides: settings over those of the source, ``attribution.ratio=0.5``; the value is YAML,
            and nothing after ``=`` is null.
        base: take relative paths inside the recipe from this folder; None leaves them as they
            are, relative to the current one.

    Raises:
        WagleError: no such recipe, bad YAML, or a setting that does not exist or does not fit: one
            line that names the key.
    """
    where, data = _read(source)
    for key, value in _pairs(overrides):
        _set(data, key, value)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise WagleError(f"{where}: {_explain(error, data)}") from None
    except RecursionError:
        raise WagleError(f"{where} is nested too deeply, or holds itself") from None
    return recipe if base is None else _rebased(recipe, base)


def read_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Settings of something that is no recipe, such as a benchmark: ``split=forget10``."""
    return dict(_pairs(overrides))


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise WagleError(f"override {override!r} has no value; write {key or 'KEY'}=VALUE")
        if not all(key.split(".")):
            raise WagleError(f"override {override!r} names no setting; write attribution.ratio=0.5")
        yield key, _parse(text, f"override {override!r}")


def _read(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What messages call the recipe, and its settings as they are written."""
    if isinstance(source, Mapping):
        return "recipe", dict(source)
    where, ready = str(source), _ready()
    if isinstance(source, str) and source in ready:
        text = ready[source]
    else:
        path = Path(source)
        if path.is_dir():
            raise WagleError(f"{where} is a folder; give the recipe file in it")
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            guess = nearest(path.stem, ready)
            hint = f"; nearest: {guess}" if guess else ""
            known = f" (known: {', '.join(sorted(ready))})" if ready else ""
            raise WagleError(
                f"no file {where} exists, and no ready recipe has that name{hint}{known}"
            ) from None
        except UnicodeDecodeError as error:
            raise WagleError(f"{where} is not UTF-8 text ({error})") from None
        except (OSError, ValueError) as error:
            raise WagleError(f"cannot read {where!r}: {error}") from None
    data = _parse(text, where)
    if data is None:
        raise WagleError(f"{where} is empty; a recipe needs at least name and model")
    if not isinstance(data, dict):
        raise WagleError(f"{where} holds {shown(data)}; a recipe is a mapping, such as name: demo")
    return where, data


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c``: sections that are absent, null or a bare text become mappings on the way."""
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


def _rebased(recipe: Recipe, base: Path) -> Recipe:
    """``recipe`` with its relative paths taken from ``base``."""
    data = recipe.resolved()

    def move(section: dict[str, Any] | None, key: str, *words: str) -> None:
        given = section[key] if section else None
        moved = [
            one if one in words or one.startswith("demo:") else str(base / one)
            for one in ([given] if isinstance(given, str) else given or [])
        ]
        if section and moved:
            section[key] = moved[0] if isinstance(given, str) else moved

    move(data["model"], "path", "demo")
    move(data["model"], "adapter")
    move(data, "after")
    move(data, "reference", *MADE)
    move(data["attribution"], "mask")
    if isinstance(data["attribution"]["score"], dict):
        for kind in {"random_like", "complement"} & set(data["attribution"]["score"]):
            move(data["attribution"]["score"], kind)
    for name in ("forget", "retain", "retain_heldout", "general", "holdout"):
        move(data[name], "source", "complement")
    move((data["finetune"] or {}).get("records"), "source")
    return Recipe.model_validate(data)


# ---------------------------------------------------------------------------------------------
# What is wrong, in one line


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem in the order of the document, and how many more there are."""
    problems = sorted(error.errors(include_url=False), key=lambda e: _position(e["loc"], data))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(_problem(problems[0]).split()) + more


def _position(loc: Sequence[int | str], data: Any) -> list[int]:
    """Where a key stands in the document; one that is missing comes after those that are there."""
    place = []
    for part in loc:
        if isinstance(data, Mapping):
            known = [str(key) for key in data]
            place.append(known.index(str(part)) if str(part) in known else len(known))
            data = data.get(part)
        elif isinstance(part, int):
            place.append(part)
    return place


def _dotted(loc: Sequence[int | str]) -> str:
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "[key]"
    ]
    return "".join(parts).removeprefix(".")


_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_MUST = {
    "bool_type": "it must be true or false",
    "dict_type": "it must be a mapping, such as {name: value}",
    "finite_number": "it must be a finite number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_type": "it must be a whole number",
    "list_type": "it must be a list, such as [a, b]",
    "string_too_short": "it must not be empty",
    "string_type": "it must be text",
    "too_short": "it must not be empty",
}


def _problem(error: ErrorDetails) -> str:
    """One error of pydantic in our words: the key, its value, what is allowed."""
    kind, context, loc = error["type"], error.get("ctx", {}), error["loc"]
    key = _dotted(loc)
    if kind == "refused":
        own = context["key"]
        dot = "." if key and own else ""
        return f"{key}{dot}{own} {context['said']}"
    if kind in {"extra_forbidden", "invalid_key"}:
        return _unknown(tuple(loc))
    if kind == "missing":
        return f"{key} is missing; every {_owner(loc)} needs it"
    value = shown(error["input"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        guess = nearest(error["input"], allowed) if isinstance(error["input"], str) else None
        hint = f"nearest: {guess!r}" if guess else f"it must be {context['expected']}"
        return f"{key} is {value}; {hint}"
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"{key} is {value}; it must be {word} {context[limit]:g}"
    if kind in {"model_type", "model_attributes_type"}:
        return f"{key or 'the recipe'} is {value}; it must be a section: settings with their values"
    quotes = ", so put it in quotes" if kind == "string_type" and _is_scalar(error["input"]) else ""
    return f"{key} is {value}; {_MUST.get(kind, error['msg'].lower())}{quotes}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _owner(loc: Sequence[int | str]) -> str:
    return {"path": "model", "source": "set of records"}.get(str(loc[-1]), "recipe")


def _keys(section: type[Section] = Recipe, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = section_of(field.annotation) or item_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _unknown(loc: tuple[int | str, ...]) -> str:
    """Name the nearest key: in the same section first, then everywhere."""
    wrong = str(loc[-1])
    prefix = "".join(f"{part}." for part in loc[:-1] if not isinstance(part, int))
    keys = list(_keys())
    own = [k for k in keys if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    close = get_close_matches(wrong, [k.removeprefix(prefix) for k in own], n=1, cutoff=0.75)
    guess = close[0] if close else nearest(wrong, {_last(key) for key in keys})
    found = [k for k in own if _last(k) == guess] or [k for k in keys if _last(k) == guess][:2]
    hint = f"; nearest: {' or '.join(found)}" if found else ""
    return f"{_dotted((*loc[:-1], wrong))} is not a setting{hint}"
