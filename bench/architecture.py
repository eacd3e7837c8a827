"""The page docs/architecture.md, made from the import contract and the packages' own docstrings.

python -m bench.architecture --out docs/architecture.md
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "wagle"

_INTRODUCTION = """\
# The house

The code lives in {rooms} packages, the *rooms*, on {floors} floors. Imports go down the floors, never up;
rooms on one floor do not import one another; and no two files of a room import each other in a circle.
`make lint` checks all three with import-linter (the contracts are in `pyproject.toml`), imports inside
functions included. What an upper room must lend to a lower one is passed in as an argument.

This page is written by `make docs/architecture.md` from those contracts and from the docstrings of the
packages. How to add something: [CONTRIBUTING.md](../CONTRIBUTING.md).

## How the data flows

```
records -> tokens -> gradient store -> scores -> mask -> selected weights -> unlearned model -> patch
              |        (once: slow)   (cheap)  (any ratio)                        |
              +-----------------------------------------------> evaluation, attacks -> report
```

Every arrow writes a file that can be inspected, shared and resumed from. No stage reads what a later
stage writes.

## The floors

| floor | room | what it holds |
| --- | --- | --- |
"""


def floors() -> list[list[str]]:
    """The rooms of every floor, from the top, as the import contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    return [[room.strip() for room in floor.split("|")] for floor in layers]


def purpose(package: Path) -> str:
    """The first paragraph of a package's or a module's docstring."""
    file = package / "__init__.py" if package.is_dir() else package
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(said.split("\n\n")[0].split())


def architecture_page() -> str:
    """The whole page, as Markdown."""
    all_floors = floors()
    rooms = sum(len(floor) for floor in all_floors)
    lines = [_INTRODUCTION.format(rooms=rooms, floors=len(all_floors)).rstrip("\n")]
    for number, floor in zip(range(len(all_floors), 0, -1), all_floors, strict=True):
        lines += [f"| {number} | `{room}/` | {purpose(SOURCE / room)} |" for room in floor]
    lines += [
        "",
        "`recipes/` holds the ready recipes, as data of the package. `tests/` mirrors `src/wagle/`.",
    ]
    for floor in all_floors:
        for room in floor:
            lines += _room(SOURCE / room)
    return "\n".join(lines) + "\n"


def _room(room: Path) -> list[str]:
    """A section of the page: what lies in a room."""
    lines = ["", f"## {room.name}", "", "| file | what it holds |", "| --- | --- |"]
    for entry in sorted(room.rglob("*.py")):
        inside = entry.relative_to(room)
        if entry.name == "__init__.py":
            if entry.parent != room:
                lines.append(f"| `{inside.parent}/` | {purpose(entry.parent)} |")
            continue
        lines.append(f"| `{inside}` | {purpose(entry)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "docs" / "architecture.md"))
    Path(parser.parse_args().out).write_text(architecture_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
