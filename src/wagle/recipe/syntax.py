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
from wagle.system.files.reading import DEEPEST, one_line

LARGEST = 1 << 18  # characters of a recipe: a hundred times those of one with every setting
MOST_VALUES = 50_000  # of a recipe, with every alias replaced by what it stands for
LONGEST_NUMBER = 100  # characters
_TAG = "tag:yaml.org,2002:"
_HALF = re.compile("[\ud800-\udfff]")


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
    """Read YAML; bad syntax, duplicate keys and what is out of bounds are one-line errors."""
    if len(text) > LARGEST:
        raise WagleError(f"{where} has {len(text):,} characters; at most {LARGEST:,} are read")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Bounds(loader).check(node)
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


class _Bounds:
    """Limits of a document, checked before any of it is constructed.

    An alias is a second place of a node, so a few lines may stand for any number of values: what
    counts is how many there are once every alias is replaced.
    """

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._known: dict[
            int, tuple[int, int] | None
        ] = {}  # None: not finished, so it holds itself

    def check(self, node: yaml.Node) -> tuple[int, int]:
        """How many nodes there are from here on, and how many levels.

        Raises:
            yaml.MarkedYAMLError: too many of them, or a value that no recipe has.
        """
        if id(node) not in self._known:
            self._known[id(node)] = None
            self._known[id(node)] = self._measure(node)
        found = self._known[id(node)]
        if found is None:
            raise _unfit(node, "it holds itself")
        return found

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
            return 1, 0
        if node.tag not in (_TAG + "seq", _TAG + "map"):
            raise _unfit(
                node, f"could not determine a constructor for the tag {one_line(node.tag)!r}"
            )
        inner = [x for one in node.value for x in (one if isinstance(one, tuple) else (one,))]
        sizes = [self.check(one) for one in inner]
        size = 1 + sum(size for size, _ in sizes)
        depth = 1 + max((depth for _, depth in sizes), default=0)
        if depth > DEEPEST:
            raise _unfit(node, "it is nested too deeply")
        if size > MOST_VALUES:
            raise _unfit(node, f"it stands for more than {MOST_VALUES:,} values")
        return size, depth

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if _HALF.search(text):
            raise _unfit(node, "it holds half of a surrogate pair, which is not a character")
        if kind in ("str", "merge", "value"):
            return
        if kind not in ("int", "float", "bool", "null"):
            raise _unfit(
                node, f"could not determine a constructor for the tag {one_line(node.tag)!r}"
            )
        read: Any = self._loader
        if read.resolve(yaml.ScalarNode, text, (True, False)) != node.tag:
            raise _unfit(node, f"{one_line(repr(text))} is not of the type !!{kind}")
        if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
            raise _unfit(node, f"a number has {len(text):,} characters")


def _unfit(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


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
