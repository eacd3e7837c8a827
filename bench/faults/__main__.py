"""The fault matrix, and random kills.

    python -m bench.faults matrix --scratch F --json bench/measured/faults.json --page docs/reliability.md
    python -m bench.faults kills --scratch F --json bench/measured/faults.json --page docs/reliability.md

Both add to one JSON file and go on where an interruption left them; ``--again`` tries anew what is
known, ``--only "unlearn SIGTERM,ledger disk full"`` tries some. Exit code 1 if a run was lost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.faults.kills import tries
from bench.faults.matrix import FAULTS, GOOD, Cell, Trial
from bench.faults.page import page
from bench.faults.trying import imports, prepare
from bench.faults.undisturbed import Undisturbed
from wagle.run.stages.table import STAGES


def main() -> None:
    asked = _parser().parse_args()
    path = Path(asked.json)
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    imports()
    home = Path(asked.scratch).resolve()
    run = Undisturbed(home, prepare(home))
    run.make()
    trial = Trial(run, asked.seed)
    known["points"] = run.points
    rows = known.setdefault(asked.what, {})
    only = asked.only.split(",") if asked.only else None
    for name, cell in _cells(trial) if asked.what == "matrix" else tries(trial):
        if (name in rows and not asked.again) or (only is not None and name not in only):
            continue
        rows[name] = vars(cell())
        sys.stderr.write(f"{name}: {rows[name]}\n")
        path.write_text(json.dumps(known, indent=1) + "\n")
    if asked.page:
        Path(asked.page).write_text(page(known))
    lost = [n for n, row in rows.items() if row["outcome"] not in GOOD]
    print(f"{len(rows)} tried, {len(lost)} lost: {', '.join(lost) or 'none'}")
    sys.exit(bool(lost))


def _cells(trial: Trial) -> Iterator[tuple[str, Callable[[], Cell]]]:
    for stage in STAGES:
        for fault in FAULTS:
            yield f"{stage} {fault}", lambda s=stage, f=fault: trial.cell(s, f)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("matrix", "kills"))
    parser.add_argument("--scratch", required=True, help="a folder to work in")
    parser.add_argument("--json", required=True, help="what was found, added to what is there")
    parser.add_argument("--page", help="the page to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="what is tried, by name; the default is everything")
    parser.add_argument("--again", action="store_true", help="try again what is known")
    return parser


if __name__ == "__main__":
    main()
