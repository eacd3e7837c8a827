"""The tasks of the lm-eval library: finds them by name or file, and their data in local folders."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from wagle.compat.lm_eval import (
    runs_code,
    tagged_tasks,
    task_file,
    task_index,
    task_settings,
    with_file,
)
from wagle.data.hub import explain
from wagle.system.errors import WagleError, nearest

# The files a copy of a data set is made of, and what reads them.
_READERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
_PART = re.compile(r"-\d{5}-of-\d{5}.*")  # of a split in several files


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the library's warnings that nobody can act on (defaults of its own tasks)."""
    own = logging.getLogger("lm_eval")
    level = own.level
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        own.setLevel(level)


def load_tasks(names: Sequence[str], data: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load tasks with their data.

    Args:
        names: the names of tasks, groups or tags; empty: all that ``data`` defines.
        data: a task file, or a folder with task files, copies of data sets, or both; None: the
            library's tasks and the hub's cache.

    Returns:
        The library's tasks and groups, by name.

    Raises:
        WagleError: lm-eval is not installed; a name is unknown; data is missing or gated.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise WagleError("this benchmark needs lm-eval: pip install 'wagle[lm-eval]'") from None
    if data is not None and not data.exists():
        raise WagleError(f"data {data} does not exist; give a task file or a folder")
    folder = data if data is not None and data.is_dir() else None
    manager = TaskManager(include_path=folder, include_defaults=False)  # the library's take seconds
    if data is not None and folder is None:
        if names:
            raise WagleError(f"{data} is one task file; leave tasks out, or give its folder")
        names = [str(data)]
    elif not names:
        names = manager.all_tasks
        if not names:
            raise WagleError("no tasks: name some of lm-eval's, or give data with task files")
    elif any(name not in task_index(manager) for name in names):
        manager = TaskManager(include_path=folder)
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made, quiet():
        if folder is not None:
            _take_copies(task_index(manager), folder, Path(made))
        for name in names:
            loaded = _load_one(manager, name, folder)
            tasks |= loaded["tasks"]
            groups |= loaded.get("groups", {})
    return tasks, groups


def _load_one(manager: Any, name: str, folder: Path | None) -> dict[str, Any]:
    from wagle.compat.datasets import DatasetsError

    index = task_index(manager)
    if name not in index and not Path(name).is_file():
        guess = nearest(name, index)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise WagleError(f"unknown lm-eval task {name!r}{hint} (see: lm-eval ls tasks)")
    try:
        loaded: dict[str, Any] = manager.load([name])
    except (OSError, ValueError, KeyError, ImportError, DatasetsError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        if isinstance(error, KeyError):
            why = f"{why} is in it neither as a split nor as a column"
        raise WagleError(_missing(name, sorted(_data_sets(index, name)), folder, why)) from error
    for task in loaded["tasks"].values():
        if runs_code(task):
            raise WagleError(f"{task.task_name} runs code that the model writes; wagle does not")
    return loaded


def _missing(name: str, sets: Sequence[str], folder: Path | None, why: str) -> str:
    if not sets:
        return f"the lm-eval task {name} cannot be loaded: {why}"
    what = f"{name} needs the data set {', '.join(sets)}"
    if folder is not None and all(_home(folder.resolve(), path) for path in sets):
        return f"{what}, but the copy in {folder} cannot be used: {why}"
    places = ", ".join(str((folder or Path("FOLDER")) / s.rpartition("/")[2]) for s in sets)
    there = "there is no copy at" if folder is not None else "give data=FOLDER with a copy at"
    local = f"{there} {places}; or set HF_HOME to a cache of the hub that holds it"
    return explain(what, why, local)


def _data_sets(index: Mapping[str, Any], name: str) -> set[str]:
    """The hub names of the data sets of a task, or of all tasks of a group or tag."""
    entry = index.get(name)
    if entry is None:
        return set()
    own = task_settings(entry)
    if own is not None and not isinstance(own.get("task"), list):
        path, kwargs = own.get("dataset_path"), own.get("dataset_kwargs") or {}
        return set() if path is None or "data_files" in kwargs else {str(path)}
    members = sorted(tagged_tasks(entry)) if own is None else own["task"]
    named = [m.get("task") or m.get("group") if isinstance(m, dict) else m for m in members]
    return {found for member in named for found in _data_sets(index, str(member))}


def _take_copies(index: dict[str, Any], folder: Path, made: Path) -> None:
    """Let tasks read their data sets from ``folder`` if it has copies of them.

    A task whose data set is there gets a task file in ``made`` that includes its own and differs
    only in the data set.
    """
    homes: dict[str, Path | None] = {}
    for number, (name, entry) in enumerate(list(index.items())):
        file, said = task_file(entry), task_settings(entry) or {}
        if file is None or "group" in said:
            continue
        path = next(iter(_data_sets(index, name)), None)
        if path is None:
            continue
        if path not in homes:
            homes[path] = _home(folder.resolve(), path)
        home = homes[path]
        if home is None:
            continue
        own = {"include": str(file), "task": name}
        copy = made / f"{number}.yaml"
        text = yaml.safe_dump({**own, **_source(home, said.get("dataset_name"))})
        copy.write_text(text, encoding="utf-8")
        index[name] = with_file(entry, copy)


def _source(home: Path, config: str | None) -> dict[str, Any]:
    """The settings for a task to read a copy of its data set.

    The files of a configuration are given by name: left to itself, ``datasets`` takes the split
    ``dev`` as another name for ``validation``.
    """
    files: dict[str, list[str]] = {}
    reader = None
    for file in sorted((home / config).glob("*")) if config else ():
        if file.suffix in _READERS:
            reader = _READERS[file.suffix]
            files.setdefault(_PART.sub("", file.stem), []).append(str(file))
    if reader is None:
        return {"dataset_path": str(home), "dataset_name": config}
    kwargs = {"data_files": files}
    return {"dataset_path": reader, "dataset_name": None, "dataset_kwargs": kwargs}


def _home(folder: Path, path: str) -> Path | None:
    """Where in ``folder`` the copy of a data set is, if there is one."""
    last = path.rpartition("/")[2]
    places = [folder / path, folder / last, *([folder] if folder.name == last else [])]
    for place in places:
        if place.is_dir() and any(file.suffix in _READERS for file in place.rglob("*")):
            return place
    return None
