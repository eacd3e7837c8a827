"""Print the state of the house, each figure with its limit; exit code 1 if any limit is missed.

    python -m bench.house                      # everything, a few minutes
    python -m bench.house --quick              # without adding one of each kind
    python -m bench.house --kinds attack,score # with some kinds only
    python -m bench.house --examples           # the examples of every kind, as Markdown

It counts ``src/wagle``. A room is a top-level package or module; a floor is a layer of the contract
in ``pyproject.toml``. Files that define neither functions nor classes are data. A function's lines
are counted from ``def`` on, without its docstring. A name is public if neither it nor anything that
encloses it has a leading underscore. One of each kind is actually added to a copy of the
repository, its test and those of its table are run there, and the files that differ are counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.house import counts
from bench.house.additions import ADDITIONS, Addition, New
from bench.house.trying import try_addition

ROOMS, FLOORS, DOCUMENTED, TESTED = 18, 10, 95.0, 0.9


class Row(NamedTuple):
    """A line of the table: what was counted, its limit, whether it holds, and where it fails."""

    what: str
    value: float
    limit: str
    ok: bool
    where: list[str]

    def text(self) -> str:
        """As a line of the table, with at most five places."""
        shown = [f"      {place}" for place in self.where[:5]]
        more = [f"      and {len(self.where) - 5} more"] if len(self.where) > 5 else []
        line = f"{self.what:<44}{self.value:>9.4g}  {self.limit:<10}{'ok' if self.ok else 'MISS'}"
        return "\n".join([line, *([] if self.ok else shown + more)])


def quick_rows(root: Path) -> Iterator[Row]:
    """Everything that is counted without adding anything.

    Args:
        root: of the repository.
    """
    package = root / "src" / "wagle"
    yield _at_most("rooms", counts.rooms(package), ROOMS)
    yield _at_most("floors", [", ".join(floor) for floor in counts.floors(root)], FLOORS)
    broken = [name for name, held in counts.contracts(root).items() if not held]
    yield _at_most("contracts of imports that do not hold", broken, 0)
    yield _at_most("packages with a circle among their parts", counts.circles(package), 0)
    for what, found in (
        (f"files over {counts.LONG_FILE} lines", counts.long_files(package)),
        (f"functions over {counts.LONG_FUNCTION} lines", counts.long_functions(package)),
        (f"folders with more than {counts.FULL_FOLDER} modules", counts.full_folders(package)),
    ):
        yield _at_most(what, [f"{one.where}: {one.size}" for one in found], 0)
    told = counts.documented(package)
    yield Row(
        f"public docstrings, % of {told.count}",
        told.percent,
        f">= {DOCUMENTED:g}",
        told.percent >= DOCUMENTED,
        told.without,
    )
    share = counts.lines_of(root / "tests") / counts.lines_of(package)
    yield Row("test lines : source lines", share, f">= {TESTED:g}", share >= TESTED, [])


def _at_most(what: str, found: Sequence[str], most: int) -> Row:
    return Row(what, len(found), f"<= {most}", len(found) <= most, list(found))


def addition_row(root: Path, addition: Addition) -> Row:
    """How many files adding one of a kind touches, if it works.

    Args:
        root: of the repository.
        addition: what to add to a copy of it.
    """
    made = try_addition(root, addition)
    ok = not made.problem and len(made.files) <= addition.most
    where = [made.problem] if made.problem else made.files
    return Row(
        f"files for one more {addition.kind}", len(made.files), f"<= {addition.most}", ok, where
    )


def as_markdown(additions: Sequence[Addition]) -> str:
    """The examples of all kinds, file by file.

    Args:
        additions: what to show.
    """
    lines = []
    for one in additions:
        lines += [f"### {one.kind[:1].upper()}{one.kind[1:]}: `{one.name}`", ""]
        for step in one.steps:
            where = "a new file" if isinstance(step, New) else f"ahead of `{step.at.strip()}`"
            lines += [f"`{step.path}`, {where}:", "", "```python", step.text.rstrip(), "```", ""]
    return "\n".join(lines)


def main(options: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.house",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path(), help="of the repository")
    parser.add_argument("--json", type=Path, help="also write the table there")
    parser.add_argument("--quick", action="store_true", help="add nothing")
    parser.add_argument("--kinds", help="add only these kinds, separated by commas")
    parser.add_argument("--examples", action="store_true", help="print the examples, count nothing")
    asked = parser.parse_args(options)
    if asked.examples:
        print(as_markdown(ADDITIONS))
        return
    known = {one.kind: one for one in ADDITIONS}
    kinds = [*known] if asked.kinds is None else asked.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in known]:
        parser.error(f"unknown kind {unknown[0]!r} (known: {', '.join(known)})")
    root, rows = asked.root.resolve(), []
    for row in _rows(root, [] if asked.quick else [known[kind] for kind in kinds]):
        print(row.text(), flush=True)
        rows.append(row._asdict())
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(row["ok"] for row in rows) else 1)


def _rows(root: Path, additions: Sequence[Addition]) -> Iterator[Row]:
    yield from quick_rows(root)
    for one in additions:
        yield addition_row(root, one)


if __name__ == "__main__":
    main()
