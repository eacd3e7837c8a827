"""What can be counted from the source: pure functions of files, and one run of the linter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONG_FILE, LONG_FUNCTION, FULL_FOLDER = 350, 50, 12
_NO_ROOM = ("__init__", "__main__")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


class Found(NamedTuple):
    """Something over its limit: where it is and how large."""

    where: str
    size: int


class Documented(NamedTuple):
    """How many public names there are, and those without a docstring."""

    count: int
    without: list[str]

    @property
    def percent(self) -> float:
        """How many public names have a docstring, in percent."""
        return 100 * (1 - len(self.without) / self.count) if self.count else 100.0


def sources(folder: Path) -> list[Path]:
    """The Python files in a folder and its subfolders."""
    return sorted(folder.rglob("*.py"))


def rooms(package: Path) -> list[str]:
    """The top-level packages and modules; a folder without ``__init__.py`` holds data."""
    names = [path.parent.name for path in package.glob("*/__init__.py")]
    return sorted(names + [p.stem for p in package.glob("*.py") if p.stem not in _NO_ROOM])


def floors(root: Path) -> list[list[str]]:
    """The layers of the contract in ``pyproject.toml``, top to bottom; each is a list of rooms."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    return [[room.strip("() ") for room in layer.split("|")] for layer in layers]


def contracts(root: Path) -> dict[str, bool]:
    """Every contract of import-linter by name, and whether it holds."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", _LINT],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    verdicts = {" KEPT": True, " BROKEN": False}
    found = {
        line.removesuffix(end).strip(): held
        for line in lines
        for end, held in verdicts.items()
        if line.endswith(end)
    }
    if not found:
        raise RuntimeError(f"import-linter said nothing: {done.stdout}{done.stderr}")
    return found


def circles(package: Path) -> list[str]:
    """The packages, at any depth, whose parts import one another in a circle."""
    sys.path.insert(0, str(package.parent))
    try:
        graph = grimp.build_graph(package.name, cache_dir=None)
    finally:
        sys.path.remove(str(package.parent))
    parents = sorted(name for name in graph.modules if graph.find_children(name))
    return [name for name in parents if graph.nominate_cycle_breakers(name)]


def long_files(package: Path) -> list[Found]:
    """Files of more than 350 lines, except data: files that define no function or class."""
    found = []
    for path in sources(package):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        code = any(isinstance(n, _Function | ast.ClassDef) for n in ast.walk(ast.parse(text)))
        if lines > LONG_FILE and code:
            found.append(Found(str(path.relative_to(package)), lines))
    return found


def long_functions(package: Path) -> list[Found]:
    """Functions of more than 50 lines from ``def`` on, not counting their docstring."""
    return [
        Found(f"{path.relative_to(package)}: {node.name}", size)
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, _Function) and (size := body_lines(node)) > LONG_FUNCTION
    ]


def body_lines(function: _Function) -> int:
    """How many lines a function has, not counting its docstring."""
    lines = int(function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return lines
    told = function.body[0]
    return lines - (int(told.end_lineno or 0) - told.lineno + 1)


def full_folders(package: Path) -> list[Found]:
    """Folders with more than 12 modules, not counting ``__init__`` and ``__main__``."""
    folders = sorted({path.parent for path in sources(package)})
    sizes = {f: sum(p.stem not in _NO_ROOM for p in f.glob("*.py")) for f in folders}
    return [
        Found(str(f.relative_to(package)), size) for f, size in sizes.items() if size > FULL_FOLDER
    ]


def documented(package: Path) -> Documented:
    """The public functions, classes and methods, and those without a docstring.

    A name is public if neither it nor anything that encloses it has a leading underscore: methods
    of a private class are private, and so are functions within functions. Properties, validators
    and other decorated methods count like all others.
    """
    count, without = 0, []
    for path in sources(package):
        if any(part.startswith("_") and part not in _DUNDER for part in path.parts):
            continue
        for name, node in _public(ast.parse(path.read_text(encoding="utf-8")), ""):
            count += 1
            if ast.get_docstring(node) is None:
                without.append(f"{path.relative_to(package)}: {name}")
    return Documented(count, without)


_DUNDER = ("__init__.py", "__main__.py")


def _public(
    node: ast.Module | ast.ClassDef, within: str
) -> Iterator[tuple[str, _Function | ast.ClassDef]]:
    for part in node.body:
        if isinstance(part, _Function | ast.ClassDef) and not part.name.startswith("_"):
            yield within + part.name, part
            if isinstance(part, ast.ClassDef):
                yield from _public(part, f"{within}{part.name}.")


def lines_of(folder: Path) -> int:
    """How many lines the Python files in a folder have."""
    return sum(path.read_text(encoding="utf-8").count("\n") for path in sources(folder))
