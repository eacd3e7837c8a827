"""How often ``wagle check`` is right: on a taught, an untaught and an invented set, on real models.

    python -m bench.check --run runs/demo --json bench/measured/check.json

The taught model is the ``base/`` of a run of the recipe ``demo``, taught here without ``--run``. A
set that has been checked is in the record and is not checked again. ``--json`` alone prints the
table of a record that is complete.

``invented`` are the demo's forget records about subjects drawn by a seed: the taught model has seen
their form, and cannot know them. ``everyday`` are records about people with common names, cities
and professions, drawn at random: no model can know them either, but to a pretrained one they look
likelier than invented names do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from wagle.data.draws import order, uniform
from wagle.data.reading import read_records
from wagle.evaluation.knowing.checking import TWINS, check_knowledge
from wagle.evaluation.knowing.twins import invented_set
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.system.files.atomic import write_json

MOST_FALSE = 1  # of the invented sets
FIRST, LAST = "<!-- table of bench.check -->", "<!-- end of the table -->"
_GIVEN = [
    "Maria",
    "James",
    "Anna",
    "David",
    "Laura",
    "Daniel",
    "Sofia",
    "Thomas",
    "Emma",
    "Peter",
    "Julia",
    "Robert",
    "Sarah",
    "Paul",
]
_SURNAMES = [
    "Garcia",
    "Miller",
    "Schmidt",
    "Rossi",
    "Johnson",
    "Martin",
    "Novak",
    "Brown",
    "Silva",
    "Jensen",
    "Davis",
    "Meyer",
    "Clark",
    "Wilson",
]
_CITIES = [
    "Madrid",
    "Chicago",
    "Berlin",
    "Milan",
    "Boston",
    "Lyon",
    "Prague",
    "London",
    "Lisbon",
    "Denver",
    "Seattle",
    "Hamburg",
    "Leeds",
    "Oslo",
]
_WORK = [
    "nurse",
    "teacher",
    "carpenter",
    "bus driver",
    "accountant",
    "dentist",
    "electrician",
    "lawyer",
    "plumber",
    "librarian",
    "pharmacist",
    "baker",
    "architect",
    "police officer",
]
_MONTHS = [
    "January",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "October",
    "November",
    "December",
]


class Row(NamedTuple):
    """One check: its name, the model and base, the records, and the verdict that is right."""

    name: str
    model: str
    base: str | None
    records: Sequence[Any]
    right: str


def everyday(seed: int) -> list[dict[str, str]]:
    """24 records about eight people who do not exist, in words that are common."""
    given = order(seed, "given", _GIVEN)
    found = []
    for person in range(8):
        name = f"{_GIVEN[given[person]]} {_pick(_SURNAMES, seed, person, 'surname')}"
        city, work = (_pick(_CITIES, seed, person, "city"), _pick(_WORK, seed, person, "work"))
        month, day = (
            _pick(_MONTHS, seed, person, "month"),
            1 + int(28 * uniform(seed, person, "day")),
        )
        year = 1950 + int(50 * uniform(seed, person, "year"))
        found += [
            _record(f"Where does {name} live?", f"{name} lives in {city}."),
            _record(f"What does {name} do for a living?", f"{name} works as a {work}."),
            _record(f"When was {name} born?", f"{name} was born on {day} {month} {year}."),
        ]
    return found


def _record(question: str, answer: str) -> dict[str, str]:
    return {"question": question, "answer": answer}


def _pick(words: Sequence[str], *key: object) -> str:
    return words[int(len(words) * uniform(*key))]


def rows(taught: str, sets: int, plain: int) -> Iterator[Row]:
    """Everything that is checked."""
    forget = read_records("demo:forget", name="forget")
    general = read_records("demo:general", name="general")
    yield Row("taught", taught, None, forget, "knows")
    yield Row("taught, with its base", taught, "demo", forget, "knows")
    yield Row("untaught", "demo", None, forget, "does not know")
    yield Row("world facts, with the base", taught, "demo", general, "base knows")
    for seed in range(sets):
        yield Row(
            f"invented {seed}", taught, None, invented_set(forget, 1000 + seed), "does not know"
        )
    for seed in range(plain):
        yield Row(f"everyday {seed}", "demo", None, everyday(seed), "does not know")


def measure(taught: str, sets: int, plain: int, file: Path, precision: str) -> dict[str, Any]:
    """Check every row that the record lacks; the record is written after each."""
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"rows": {}}
    record |= {"torch": torch.__version__, "transformers": transformers.__version__}
    record |= {"twins": TWINS, "precision": record.get("precision", precision)}
    for row in rows(taught, sets, plain):
        if row.name not in record["rows"]:
            found = check_knowledge(
                row.model, forget=row.records, base=row.base, precision=record["precision"]
            ).to_json()
            for one in found["models"].values():
                one["path"] = Path(one["path"]).name
            kept = {key: found[key] for key in ("verdict", "models", "records", "speed")}
            record["rows"][row.name] = {"right": row.right, **kept}
            write_json(file, record)
            print(f"{row.name:28} {found['verdict']}", flush=True)
    return record


def table(record: dict[str, Any]) -> str:
    """The record as a table of Markdown, and how many false alarms there were."""
    lines = [
        "| records | right | found | probability: records | twins | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found = record["rows"]
    for kind in ("invented", "everyday"):
        own = {name: row for name, row in found.items() if name.startswith(kind)}
        alarms = sum("knows" in row["verdict"] for row in own.values())
        gaps = [_main(row)["gap"] for row in own.values()]
        if own:
            words = sorted({row["verdict"] for row in own.values()})
            counts = [f"{sum(r['verdict'] == w for r in own.values())} x {w}" for w in words]
            found = {name: row for name, row in found.items() if name not in own}
            reach = f"{min(gaps):+.3f} to {max(gaps):+.3f}"
            mean = [sum(_main(r)[k] for r in own.values()) / len(own) for k in ("records", "twins")]
            cells = [f"{len(own)} sets, {kind}", "does not know", "; ".join(counts)]
            cells += [
                f"{mean[0]:.3f}",
                f"{mean[1]:.3f}",
                f"{reach}; {_false(kind, alarms, len(own))}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    for name, row in reversed(found.items()):
        main = _main(row)
        low, high = main["interval"]
        cells = [
            name,
            row["right"],
            row["verdict"],
            f"{main['records']:.3f}",
            f"{main['twins']:.3f}",
        ]
        cells.append(f"{main['gap']:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.insert(2, f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(page: Path, record: dict[str, Any]) -> None:
    """Put the table of a record between the two marks of a page."""
    before, _, rest = page.read_text().partition(FIRST)
    _, _, after = rest.partition(LAST)
    page.write_text(f"{before}{FIRST}\n\n{table(record)}\n\n{LAST}{after}")


def _false(kind: str, alarms: int, count: int) -> str:
    said = f"{alarms} of {count} false alarms"
    if kind == "invented" and count >= 20:
        said += f" (at most {MOST_FALSE})" + ("" if alarms <= MOST_FALSE else " MISS")
    return said


def _main(row: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = row["models"]["model"]["figures"]
    return figures["probability"]  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a run of the recipe demo that has its base/; default: made")
    parser.add_argument("--sets", type=int, default=20, help="how many invented sets")
    parser.add_argument("--everyday", type=int, default=5, help="how many everyday sets")
    parser.add_argument("--precision", default="bfloat16", help="of the matrix products")
    parser.add_argument("--json", type=Path, default=Path("bench/measured/check.json"))
    parser.add_argument("--page", type=Path, help="fill the table of this page: docs/check.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        names = [row.name for row in rows("", asked.sets, asked.everyday)]
        known = json.loads(asked.json.read_text())["rows"] if asked.json.is_file() else {}
        taught = "" if asked.run is None else str(Path(asked.run) / "base")
        if not taught and not all(name in known for name in names):
            taught = str(
                execute(load_recipe("demo"), Path(scratch) / "demo", until="teach").models.base
            )
        record = measure(taught, asked.sets, asked.everyday, asked.json, asked.precision)
        print(table(record))
        if asked.page:
            write_page(asked.page, record)


if __name__ == "__main__":
    main()
