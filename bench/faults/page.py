"""The page docs/reliability.md, from what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bench.faults.kills import summary
from bench.faults.matrix import FAULTS, GOOD, INPUTS
from wagle.run.stages.table import STAGES

_WORDS = {
    "kill": "killed at a random point",
    "ENOSPC": "disk full from a random point on",
    "EIO": "I/O error at a random point",
    "tmpfs": "a real disk that is too small",
    "read-only disk": "a real read-only disk",
}
_HEAD = """# What survives what

A run can be killed, stopped, out of disk or damaged at any moment: the same command again finishes it,
and ends with the same files. This page says what that rests on, and what was tried. It is generated:
`python -m bench.faults matrix --scratch FOLDER --json bench/measured/faults.json --page
docs/reliability.md`, and the same with `kills`; both go on where they were interrupted.

| what happens | what the process does | what the next one does |
| --- | --- | --- |
| `kill -9`, a crash, a power cut | nothing | resumes: at the last checkpoint in training, else at the stage |
| SIGTERM, SIGHUP | finishes the training step or the batch of gradients, keeps it, exits 143 or 129 | goes on at the next step |
| SIGINT (Ctrl-C) | ends at once, exits 130 | resumes like a killed run |
| the disk is full | removes the half-written file, one line, exits 2 | resumes once there is room |
| a write fails, the disk turns read-only | one line, exits 2 | resumes |
| a file of the run changed, even under its old size and time | one line that names it, exits 2 | goes on once it is put back or made again (`--again STAGE`) |
| a second command in the same folder | the second: one line, exits 2, changes nothing | |
| a finished run on a read-only disk | prints its table | |
| bad input | one line, exits 2, leaves no folder | |

Under `nohup` SIGHUP stays ignored. Only the command line heeds signals: in your own program, nothing
is installed.

## What it rests on

- A file appears whole or not at all: it is written next to its place, synced and renamed.
  `state.json` names the finished stages; a stage that is not named there is done again.
- Training keeps a checkpoint every `checkpoint_minutes` and when it is asked to end; the answers of
  evaluations are kept batch by batch; gradients are kept about once a minute.
- Every file of a finished stage has a digest in `state.json` ([seals](seals.md)), as has the model
  that the recipe names. A stage has what it reads hashed before it begins, unless this very process
  made or hashed it and nobody has touched it since: 1.7 GB/s here, so a resumed run of a 1 GB model
  waits 0.6 s for each file that its next stages read; an undisturbed run hashes nothing twice but the
  model outside, once.
- The lock is the kernel's, on `.lock`: it ends with its process, however that ends.

An evaluation of several batches that was interrupted asks only what is missing, in other batches: its
figures are then those of the undisturbed one up to rounding in float32 (1.2e-7 at most in a tiny run),
not to the last bit. The tiny run below asks in one batch of each kind.

What is not noticed: edits of `log.jsonl` and `environment.json` (the report shows them), and a model or
records outside the run that change before any stage has read them.
"""
_HOW = """
A tiny model, %d stages. Each cell starts from what an undisturbed run had left when the stage began. A
first process meets the fault in that stage: a signal after a random share of the stage's time; an
error at a random one of its writes, syncs, renames and removals (half of a write is done first; a full
or read-only disk stays so); a flipped byte, under the same size and time, in a file that the stage
reads; a second process while the first is in the stage; the death of one of two processes that share
the run (0: what was left needed only the other). The command is then given again, to one process.

`same` means: every file of the run is that of the undisturbed one (weights, mask, patch, gradients,
evaluations, attacks, controls, ledger, the figures of the report), all seals hold, and nothing is left
half-written; times, caches of answers and the text of warnings are left out. `figures` means: the same
verdict, and all figures within 0.001, where two processes had computed a part. Before it stands the exit
code of the first process; with 2, 129, 130 or 143 it has ended with one line and no traceback.
"""


def page(known: Mapping[str, Any]) -> str:
    """The page, from the content of ``bench/measured/faults.json``."""
    cells = known.get("matrix", {})
    good = sum(cell["outcome"] in GOOD for cell in cells.values())
    lines = [_HEAD, "## The matrix\n", f"{good} of {len(cells)} cells end with the same files."]
    lines += [_HOW % len(STAGES), _row("stage", *FAULTS), _row(*["---"] * (len(FAULTS) + 1))]
    for stage in STAGES:
        shown = [_shown(cells.get(f"{stage} {fault}")) for fault in FAULTS]
        lines.append(_row(f"`{stage}`", *shown))
    lines.append(
        "\nThe damaged file: " + "; ".join(f"{s} `{f}`" for s, f in INPUTS.items()) + ".\n"
    )
    lines += [*_kills(known), *_points(known), *_said(cells)]
    return "\n".join(lines).rstrip() + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "not tried"
    words = {"same hash": "same", "same figures": "figures"}
    return f"{cell['code']}, {words.get(cell['outcome'], '**lost**')}"


def _kills(known: Mapping[str, Any]) -> list[str]:
    """What came of the random kills."""
    found = summary(known.get("kills", {}))
    if not found:
        return []
    rows = [_row(_WORDS[what], str(of), str(good)) for what, (good, of) in found.items()]
    head = [_row("what", "tries", "same files in the end"), _row("---", "---", "---")]
    return [
        "## Random kills and real disks\n",
        "A process that dies before, or halfway through, a write, sync, rename or removal drawn from"
        " all of a whole run; errors there; and real disks (tmpfs).\n",
        *head,
        *rows,
        "",
    ]


def _points(known: Mapping[str, Any]) -> list[str]:
    """How many points there are, by kind."""
    points = [name for names in known.get("points", {}).values() for name in names]
    kinds = Counter(name.partition(" ")[0] for name in points)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return [
        f"A whole run passes {len(points)} such points on {len(set(points))} names: {told}. All are"
        " listed in `bench/measured/faults.json`.\n"
    ]


def _said(tried: Mapping[str, Any]) -> list[str]:
    """Some of the lines, one of every fault."""
    seen: dict[str, str] = {}
    for cell in tried.values():
        if cell["line"]:
            seen.setdefault(cell["fault"], cell["line"])
    return ["## What is said\n", *(f"- {fault}: `{line}`" for fault, line in seen.items())]
