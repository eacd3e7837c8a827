"""The seals of a run: every stage's files have digests in ``state.json``, checked where they are read.

A quick look takes large files, such as weights, by their size and time of change. A stage has what
it needs of earlier ones hashed before it begins, 1.8 GB a second: files that the same process has
made or hashed, and that nobody has touched since, are not read again. ``inspect_run`` hashes
everything. A run of an older wagle has no seals: it opens, but nothing vouches for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wagle.run.folder import RunFolder
from wagle.system.errors import WagleError
from wagle.system.files.seals import PRIVATE, is_intact, sealable

RECIPE = (
    "recipe.yaml"  # sealed once training is over; its paths may be mended: only ``inspect_run``
)
_RECORDS = f"{PRIVATE}/retain.json"  # without it, other records would be kept
_MEASURED = (
    "evaluation/",
    "attacks/",
    "controls/",
)  # where a file that no stage wrote would mislead


@dataclass(frozen=True)
class Inspection:
    """What a thorough look at a run found.

    Attributes:
        findings: a line for every file that is not what a stage wrote, and every stage without a
            seal.
        files: how many files were hashed and are intact.
        gone: files that were deleted on purpose, and private ones that are no longer there or cannot
            be checked without their salt.
    """

    findings: tuple[str, ...]
    files: int
    gone: int


def check_seals(found: RunFolder | str | Path) -> None:
    """Refuse a run with a file that was edited since a stage wrote it; a quick look.

    Args:
        found: a run or its folder; one without seals passes.

    Raises:
        WagleError: names the file, the stage that made it, and what to do.
    """
    run = found if isinstance(found, RunFolder) else RunFolder(Path(found))
    for stage, name, digest, stamp in _sealed(run):
        if name == RECIPE or _dropped(run, name):
            continue
        if not is_intact(run.folder, name, digest, stamp):
            raise WagleError(_edited(run, stage, name))


def check_needed(run: RunFolder, reader: str, needs: Sequence[str]) -> None:
    """Refuse files that a stage is about to read and that are not what they were; by their digests.

    Args:
        run: the run.
        reader: the stage.
        needs: the stages whose results it reads.

    Raises:
        WagleError: names the file, the stage that made or read it, and what to do.
    """
    for stage, name, digest, _ in _sealed(run):
        needed = stage in needs and name != RECIPE and (name == _RECORDS or not _dropped(run, name))
        if needed and not run.holds(run.folder, name, digest):
            raise WagleError(_edited(run, stage, name))
    for stage, home in run.outside(reader, needs).items():
        sealed = run.seals[stage].read if stage != reader and stage in run.seals else {}
        for name, digest in sealed.items():
            if not run.holds(home, name, digest):
                what = "has changed" if (home / name).is_file() else "is missing"
                raise WagleError(
                    f"{home / name} {what} since the stage {stage} read it; put it back, or start "
                    "the run again in another folder"
                )


def check_sealed_file(path: str | Path) -> None:
    """Refuse one file of a run, such as a result, if it is not what the run wrote."""
    file = Path(path).absolute()
    for home in file.parents:
        if not (home / "state.json").is_file():
            continue
        run, name = RunFolder(home), file.relative_to(home).as_posix()
        for stage, known, digest, stamp in _sealed(run):
            if known == name and not is_intact(home, name, digest, stamp):
                raise WagleError(_edited(run, stage, name))


def inspect_run(folder: str | Path) -> Inspection:
    """Hash every sealed file of a run.

    Raises:
        WagleError: the folder holds no run, or its ``state.json`` was edited.
    """
    run = RunFolder(Path(folder))
    if not run.state_file.is_file():
        raise WagleError(f"{folder} is not a run: it has no state.json; give a run folder")
    found: list[str] = []
    files = gone = 0
    for stage, name, digest, _ in _sealed(run):
        if (name.startswith(f"{PRIVATE}/") and _dropped(run, name)) or _deleted(run, name):
            gone += 1
        elif is_intact(run.folder, name, digest):
            files += 1
        else:
            found.append(f"{name} {_what(run, name)} (made by {stage})")
    for stage in run.state["stages"]:
        if stage not in run.seals:
            found.append(f"the stage {stage} is not sealed: an older wagle made it")
    return Inspection((*found, *_added(run)), files, gone)


def check_run(folder: str | Path) -> list[str]:
    """What ``inspect_run`` found, a line each; empty if everything is as the run wrote it."""
    return list(inspect_run(folder).findings)


def _sealed(run: RunFolder) -> Iterator[tuple[str, str, str, list[int] | None]]:
    """Every sealed file of the finished stages: stage, name, digest, and the stamp of a large one."""
    for stage, made in run.seals.items():
        for name, digest in made.files.items():
            yield stage, name, digest, made.stamps.get(name)


def _deleted(run: RunFolder, name: str) -> bool:
    """Whether a file is gone, and was deleted on purpose."""
    known = any(name == one or (one[-1:] == "/" and name.startswith(one)) for one in run.deleted)
    return known and not (run.folder / name).exists()


def _dropped(run: RunFolder, name: str) -> bool:
    """Whether nothing can be said of a file, and nothing may need it: its whole folder is gone.

    So it is with models that were deleted to save space, and with anything private.
    """
    home, top = run.folder, Path(name).parts[0]
    if top == PRIVATE:
        return not (home / name).is_file() or not (home / PRIVATE / "salt").is_file()
    folder = top != "evaluation" and "/" in name and not (home / top).exists()
    return folder or _deleted(run, name)


def _added(run: RunFolder) -> list[str]:
    """Files among the evaluations, attacks and controls that no stage wrote."""
    found = []
    for made in run.seals.values():
        measured = [name for name in made.writes if name.startswith(_MEASURED)]
        extra = set(sealable(run.folder, measured)) - set(made.files)
        found += [f"{name} was added: no stage wrote it" for name in sorted(extra)]
    return found


def _what(run: RunFolder, name: str) -> str:
    return "was edited" if (run.folder / name).is_file() else "is missing"


def _edited(run: RunFolder, stage: str, name: str) -> str:
    again = shlex.join(["wagle", "run", str(run.folder), "--again", stage])
    return (
        f"{run.folder / name} {_what(run, name)} since the stage {stage} wrote it; put it back, or "
        f"make it again: {again}"
    )
