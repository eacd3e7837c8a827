"""A pack of a real run, audited from a clone of the repository, and six forgeries of it.

    python -m bench.audit --run runs/demo --json bench/measured/audit.json

The run is not changed. Commitment, key and pack are made beside it; then the committed state of this
repository is cloned into an empty folder, and every audit runs there, with what an auditor would be
given: the pack, the public key, the secret of the commitment, the forget set, the models. A dishonest
maker has the key, so each forgery that could be signed anew is.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from wagle.data.demo import demo_records
from wagle.evidence.pack import MANIFEST, SIGNATURE, manifest_of, read_pack
from wagle.evidence.signing import read_key, sign
from wagle.model.demo import demo_model

ROOT = Path(__file__).resolve().parent.parent
OUTCOMES = {0: "confirmed", 1: "refused", 2: "bad input", 3: "inconclusive"}


@dataclass(frozen=True)
class Table:
    """What lies on the auditor's table: a folder with everything that was handed over."""

    home: Path

    def __call__(self, name: str) -> Path:
        """The path of one thing."""
        return self.home / name


def wagle_in(folder: Path, source: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of wagle from a source tree."""
    environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "wagle", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def hand_over(run: Path, home: Path) -> Table:
    """Make commitment, key and pack of a run, and lay out what an auditor gets."""
    table, copy = Table(home / "table"), home / "run"
    table.home.mkdir()
    copy.mkdir()
    for path in run.iterdir():  # weights are linked, what may be written is copied
        if path.suffix in (".json", ".yaml", ".jsonl"):
            shutil.copy(path, copy / path.name)
        elif path.name not in ("private", ".lock"):
            (copy / path.name).symlink_to(path)
    (copy / "private").mkdir(mode=0o700)
    pack = table("pack")
    for arguments in (
        ("evidence", "--new-key", home / "maker.pem"),
        ("commit", copy),
        ("evidence", copy, "-o", pack, "--key", home / "maker.pem"),
    ):
        done = wagle_in(home, ROOT / "src", *arguments)
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stderr}")
    shutil.copy(home / "maker.pem.pub", table("maker.pub"))
    shutil.copy(copy / "private" / "commitment.secret", table("secret"))
    table("forget.json").write_text(json.dumps(demo_records("forget")))
    table("other.json").write_text(json.dumps(demo_records("forget", 1)))
    for name in ("model", "base"):
        table(name).symlink_to((run / name).resolve())
    table("untaught").symlink_to(demo_model().resolve())
    return table


def given(table: Table, **changes: object) -> list[object]:
    """The arguments of an audit that was given everything, with changes; None leaves one out."""
    told: dict[str, object] = {
        "model": table("model"),
        "forget": table("forget.json"),
        "secret": table("secret"),
        "nonce": secrets.token_hex(16),
        "base": table("base"),
        "reference": table("untaught"),
        "public-key": table("maker.pub"),
        **changes,
    }
    return [
        word for key, value in told.items() if value is not None for word in (f"--{key}", value)
    ]


def forge(table: Table, key: Path, name: str, change: Callable[[Path], None], anew: bool) -> Path:
    """A changed copy of the pack, signed anew by its maker where ``anew``."""
    pack = table(name)
    shutil.copytree(table("pack"), pack)
    change(pack)
    if anew:
        known = read_pack(pack)
        manifest = manifest_of(known)
        (pack / MANIFEST).write_text(json.dumps(manifest))
        (pack / SIGNATURE).write_text(json.dumps(sign(manifest["root"], read_key(key))))
    return pack


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Change a JSON file of a pack."""

    def edited(pack: Path) -> None:
        data = json.loads((pack / name).read_text())
        change(data)
        (pack / name).write_text(json.dumps(data, ensure_ascii=False))

    return edited


def half(result: Any) -> None:
    """Halve the probability of every forget record."""
    figure = result["metrics"]["forget.probability"]
    figure["per_record"] = {place: value / 2 for place, value in figure["per_record"].items()}
    figure["value"] /= 2


def swapped(table: Table) -> Path:
    """The unlearned model with one weight changed."""
    out = table("swapped")
    shutil.copytree(table("model"), out)
    weights = load_file(out / "model.safetensors")
    weights["model.norm.weight"][0] *= 1.01
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def cases(table: Table, key: Path) -> dict[str, tuple[Path, list[object], int]]:
    """Every audit: the pack, what the auditor gives, and the exit code that is right."""
    pack = table("pack")
    edited = forge(table, key, "edited", edit("evaluation/after.json", half), anew=True)
    chosen = edit("commitment.json", lambda c: c["protocol"].update(places=["forget[3]"]))
    probes = forge(table, key, "probes", chosen, anew=True)
    claim = edit("claim.json", lambda c: c["reasons"].append("It is also fast."))
    newer = forge(table, key, "newer", claim, anew=True)
    shutil.copy(pack / SIGNATURE, newer / SIGNATURE)
    return {
        "the pack as it is": (pack, given(table), 0),
        "the same, another nonce": (pack, given(table), 0),
        "without the model before": (pack, given(table, base=None), 3),
        "without records": (pack, given(table, forget=None, secret=None, nonce=None), 3),
        "1 edited evaluation": (edited, given(table), 1),
        "2 other base": (pack, given(table, base=table("untaught")), 1),
        "3 other forget set": (pack, given(table, forget=table("other.json")), 1),
        "4 probes chosen by the maker": (probes, given(table), 1),
        "5 patched model swapped": (pack, given(table, model=swapped(table)), 1),
        "6 old signature": (newer, given(table), 1),
    }


def measure(run: Path, home: Path) -> dict[str, Any]:
    """Hand over, clone, and audit."""
    table, clone = hand_over(run.resolve(), home), home / "clone"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    found: dict[str, Any] = {"audits": {}}
    for name, (pack, arguments, right) in cases(table, home / "maker.pem").items():
        started = time.perf_counter()
        done = wagle_in(table.home, clone / "src", "audit", pack, *arguments, "--json")
        told = json.loads(done.stdout) if done.stdout else {"reason": done.stderr.strip()}
        found["audits"][name] = {
            "outcome": OUTCOMES.get(done.returncode, "failed"),
            "right": done.returncode == right,
            "reason": told["reason"].replace(str(table.home) + "/", ""),
            "asked": len(told.get("drawn", [])),
            "passed": [line.replace(f"{table.home}/", "") for line in told.get("passed", [])],
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(f"{name}: {found['audits'][name]}", file=sys.stderr)
    head = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    found["commit"] = subprocess.run(
        head, capture_output=True, text=True, check=True
    ).stdout.strip()
    return found


def as_markdown(found: dict[str, Any]) -> str:
    """The table of docs/evidence.md."""
    lines = ["| audit | outcome | why | records asked |", "| --- | --- | --- | --- |"]
    for name, one in found["audits"].items():
        lines.append(f"| {name} | {one['outcome']} | {one['reason']} | {one['asked']} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run of the demo")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--scratch", type=Path, help="where to work; default a temporary folder")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="wagle-audit-", dir=asked.scratch) as home:
        found = measure(asked.run, Path(home))
    print(as_markdown(found), end="")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(one["right"] for one in found["audits"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
