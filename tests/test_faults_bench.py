"""The fault matrix: a short form of it, the points that it fails, and what was measured."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.faults.kills import HOW, summary
from bench.faults.matrix import FAULTS, INPUTS, PEER
from bench.faults.page import page

from wagle.run.stages.table import STAGES

ROOT = Path(__file__).parent.parent
FOUND = json.loads((ROOT / "bench" / "measured" / "faults.json").read_text())
POINTS = """
import errno, json, os, shutil, sys
from pathlib import Path
from bench.faults.points import Points

folder = Path(sys.argv[1])
wanted = sys.argv[2]

def act(number, name):
    if number < 0:
        raise OSError(errno.ENOSPC, "full")
    return name == wanted

points = Points(folder, act)
from wagle.system.files.atomic import append_line, write_json
from wagle.system.files.secrets import private_folder
from safetensors.torch import save_file
import torch

try:
    private_folder(folder / "private")
    write_json(folder / "state.json", {"stages": {}})
    append_line(folder / "log.jsonl", {"stage": "teach"})
    save_file({"a": torch.zeros(100)}, folder / "a.safetensors")
    shutil.copyfile(folder / "state.json", folder / "copy.json")
    (folder / "copy.json").unlink()
except Exception as error:
    print(error)
print(json.dumps(points.names))
"""
NAMES = [
    "mkdir private",
    "open state.json.part",
    "write state.json.part",
    "fsync state.json.part",
    "replace state.json",
    "fsync .",
    "open log.jsonl",
    "write log.jsonl",
    "serialize a.safetensors",
    "open copy.json",
    "copy copy.json",
    "unlink copy.json",
]


def through_points(folder, wanted=""):
    """What a process says that goes through some points, and their names."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", POINTS, str(folder), wanted],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    *said, names = done.stdout.splitlines()
    return said, json.loads(names)


def test_every_write_sync_rename_and_removal_below_a_folder_is_a_point(tmp_path):
    said, names = through_points(tmp_path)
    assert said == []
    assert list(dict.fromkeys(names)) == NAMES  # a copy asks twice whether there is more


@pytest.mark.parametrize(
    ("name", "kept", "line"),
    [
        ("write log.jsonl", "log.jsonl", "the disk is full"),
        ("serialize a.safetensors", "a.safetensors", f"[Errno {errno.ENOSPC}]"),
    ],
)
def test_a_write_can_fail_halfway(tmp_path, name, kept, line):
    through_points(tmp_path / "whole")
    (said,), names = through_points(tmp_path / "cut", name)
    assert said.startswith(line)
    assert names[-1] == name
    whole, cut = ((tmp_path / one / kept).read_bytes() for one in ("whole", "cut"))
    assert 0 < len(cut) < len(whole)
    assert whole.startswith(cut)


SHORT = {
    "unlearn SIGTERM": 143,
    "patch damaged input": 2,
    "ledger kill -9": -9,
    "ledger disk full": 2,
    "report second process": 2,
}


def test_cells_of_five_kinds_end_with_the_files_of_an_undisturbed_run(tmp_path):
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "bench.faults", "matrix", "--only", ",".join(SHORT)]
    command += ["--scratch", str(tmp_path / "s"), "--json", str(tmp_path / "found.json")]
    done = subprocess.run(
        [*command, "--page", str(tmp_path / "page.md")],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "5 tried, 0 lost: none"
    cells = json.loads((tmp_path / "found.json").read_text())["matrix"]
    assert {name: cell["code"] for name, cell in cells.items()} == SHORT
    shown = (tmp_path / "page.md").read_text()
    assert "5 of 5 cells end with the same files." in shown
    assert "| `unlearn` | not tried | 143, same | not tried |" in shown


# ----- what was measured -----


def test_every_cell_was_tried_and_none_was_lost():
    cells = FOUND["matrix"]
    assert list(cells) == [f"{stage} {fault}" for stage in STAGES for fault in FAULTS]
    alone = [cell for cell in cells.values() if cell["fault"] != PEER]
    assert {cell["outcome"] for cell in alone} == {"same hash"}
    for stage in STAGES:
        cell = cells[f"{stage} {PEER}"]
        assert cell["outcome"] in ("same hash", "same figures")
        assert cell["code"] == 0 or "another process has ended" in cell["line"]
    for cell in cells.values():
        silent = cell["fault"] == "kill -9" or cell["code"] == 0  # what was left needed no other
        assert (cell["line"] is None) == silent, cell
        assert cell["line"] is None or "\n" not in cell["line"]
    assert set(INPUTS) == set(STAGES)
    assert "/tmp" not in json.dumps(FOUND)


def test_every_random_kill_and_error_was_survived():
    found = summary(FOUND["kills"])
    assert found == {**{what: (n, n) for what, n in HOW.items()}, "read-only disk": (2, 2)}
    assert found["kill"] == (25, 25)


def test_a_lost_cell_is_seen_on_the_page():
    found = json.loads(json.dumps(FOUND))
    found["matrix"]["patch SIGINT"]["outcome"] = "differs: ['patch.safetensors'] []"
    count = len(STAGES) * len(FAULTS)
    assert f"{count} of {count} cells end with the same files." in page(FOUND)
    shown = page(found)
    assert f"{count - 1} of {count} cells end with the same files." in shown
    assert "**lost**" in shown
    assert "**lost**" not in page(FOUND)
