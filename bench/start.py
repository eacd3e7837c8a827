"""How long commands take to start, compared with importing torch in the same rounds.

    python -m bench.start --rounds 5 --json bench/measured/start.json

The commands take turns, and of each the fastest round counts: what else the machine does only adds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from wagle.mask import Mask

IMPORT = "import torch"
MOST = {"mask show": 1.5, "run none.yaml": 1.0}  # times what the import takes
MOST_SECONDS = {"--help": 0.3, "--version": 0.3, "schema": 0.3}


def commands(mask: Path) -> dict[str, list[str]]:
    """What is started, by the name of its row."""
    wagle = [sys.executable, "-m", "wagle"]
    return {
        IMPORT: [sys.executable, "-c", IMPORT],
        "mask show": [*wagle, "mask", "show", str(mask)],
        "run none.yaml": [*wagle, "run", "none.yaml"],
        **{name: [*wagle, name] for name in MOST_SECONDS},
    }


def measure(rounds: int) -> dict[str, Any]:
    """Seconds of every command in every round, and what it printed to stderr."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        levels = {f"model.layers.{i}.weight": torch.ones(64, 64, dtype=torch.uint8) for i in (0, 1)}
        about = {"candidates": 8192, "names": None, "model": "0" * 64, "score": "random"}
        path = Path(folder) / "mask.safetensors"
        Mask.from_levels(levels, ratios=[1.0], counts=[8192], metadata=about).save(path)
        rows: dict[str, Any] = {n: {"seconds": [], "stderr": ""} for n in commands(path)}
        for _ in range(rounds):
            for name, command in commands(path).items():
                started = time.perf_counter()
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
                rows[name]["seconds"].append(round(time.perf_counter() - started, 4))
                rows[name]["stderr"] = done.stderr
    return {"torch": torch.__version__, "rounds": rounds, "rows": rows}


def table(record: dict[str, Any]) -> str:
    """The rows of a record, with what each may take."""
    base = min(record["rows"][IMPORT]["seconds"])
    lines = []
    for name, row in record["rows"].items():
        best = min(row["seconds"])
        said = f"{name:14} {best:7.3f} s  {best / base:5.2f} x import torch"
        if name in MOST:
            said += f"  <= {MOST[name]}  {'ok' if best <= MOST[name] * base else 'MISS'}"
        if name in MOST_SECONDS:
            said += f"  <= {MOST_SECONDS[name]} s  {'ok' if best <= MOST_SECONDS[name] else 'MISS'}"
        lines.append(said)
        lines += [f"    {line}" for line in row["stderr"].splitlines()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="where to keep the raw record")
    asked = parser.parse_args()
    record = measure(asked.rounds)
    if asked.json:
        Path(asked.json).write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
