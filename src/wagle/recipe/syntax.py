"""YAML as recipes are written: without the traps of YAML 1.1, and without duplicate keys.

PyYAML with our own rules rather than ruamel.yaml, whose YAML 1.2 still reads 010 as 10 and dates as
dates, writes ``yes`` bare and U+0085 unescaped, and does not name the section of a duplicate key:
everything done here would be needed there too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from wagle.system.errors import WagleError


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's loader without YAML 1.1's traps: 1e-5 is a number; 20:40, 010 and dates are text."""
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


class Dumper(yaml.SafeDumper):
    """Quotes what either this loader or a YAML 1.1 loader would not read as text."""

    yaml_implicit_resolvers = {
        first: _Loader.yaml_implicit_resolvers.get(first, []) + known
        for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape line breaks: in its other styles PyYAML 6.0 turns U+0085 and U+2028 into newlines."""
    style = None if text.splitlines() in ([], [text]) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _dump_text)


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML; bad syntax and duplicate keys are one-line errors."""
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
