"""Add one of a kind to a copy of the repository, test it, and count the files that differ."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.house.additions import Addition, Edit, New

COPIED = ("src", "tests", "docs")  # and the files of the root
COUNTED = ("src", "tests")  # what is generated from them is not


class Touched(NamedTuple):
    """What adding one of a kind touched.

    Attributes:
        files: created or changed files, including the test.
        problem: why it does not work; "" if it does.
    """

    files: list[str]
    problem: str


class NoPlace(Exception):
    """The files or tables that an example names do not exist."""


def try_addition(root: Path, addition: Addition) -> Touched:
    """Add it to a copy of the repository and run its checks there.

    Args:
        root: of the repository, which is not changed.
        addition: what to add.
    """
    with tempfile.TemporaryDirectory(prefix="house-") as folder:
        copy = Path(folder) / "copy"
        copy_repository(root, copy)
        try:
            add(copy, addition.steps)
        except NoPlace as error:
            return Touched([], str(error))
        files = changed_files(root, copy)
        problems = [problem for check in addition.checks if (problem := _ask(copy, check))]
        return Touched(files, "; ".join(problems))


def copy_repository(root: Path, copy: Path) -> None:
    """Copy what tests need, but no caches, run folders or hidden files."""
    copy.mkdir(parents=True)
    for path in root.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy / path.name)
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, copy / name, ignore=ignored)


def add(copy: Path, steps: Sequence[New | Edit]) -> None:
    """Write new files and insert lines into existing ones.

    Raises:
        NoPlace: a new file has no package, or an existing one does not have exactly one place for
            the lines.
    """
    for step in steps:
        path = copy / step.path
        if isinstance(step, New):
            if not (path.parent / "__init__.py").is_file():
                raise NoPlace(f"{Path(step.path).parent} is no package")
            if path.exists():
                raise NoPlace(f"{step.path} is there already")
            path.write_text(step.text, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(step.at) != 1:
            raise NoPlace(f"{step.path} says {step.at.strip()!r} {text.count(step.at)} times")
        path.write_text(text.replace(step.at, step.text + step.at), encoding="utf-8")


def changed_files(root: Path, copy: Path) -> list[str]:
    """The files under ``src`` and ``tests`` that are missing or different in one of two trees."""

    def contents(home: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(home)): path.read_bytes()
            for name in COUNTED
            for path in (home / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    before, after = contents(root), contents(copy)
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def _ask(copy: Path, check: Sequence[str]) -> str:
    """Run pytest in the copy; returns its failure, or ""."""
    paths = os.pathsep.join([str(copy / "src"), str(copy)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *check]
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    said = [
        line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED", "ERROR"))
    ]
    return (
        f"pytest {' '.join(check)}: {said[0] if said else done.stdout[-300:] or done.stderr[-300:]}"
    )
