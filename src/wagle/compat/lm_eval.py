"""What wagle needs of lm-eval beyond its documented names. Tested with lm_eval 0.4.13.

The library says which tasks there are by name alone; which data set a task reads, from which file
it comes and what a group holds is in its index only.
Source: https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


def task_index(manager: Any) -> dict[str, Any]:
    """The entries of all tasks, groups and tags of a ``TaskManager``, by name; what is put in counts."""
    index: dict[str, Any] = manager.task_index
    return index


def task_settings(entry: Any) -> dict[str, Any] | None:
    """What the file of an entry says, with what it includes; None of a tag."""
    settings: dict[str, Any] | None = entry.cfg
    return settings


def task_file(entry: Any) -> Path | None:
    """The file that an entry was read from; None of one that is made of Python or of tags."""
    file: Path | None = entry.yaml_path
    return file


def tagged_tasks(entry: Any) -> set[str]:
    """The names of the tasks that carry a tag."""
    names: set[str] = entry.tags
    return names


def with_file(entry: Any, file: Path) -> Any:
    """An entry that is loaded from another file."""
    return dataclasses.replace(entry, yaml_path=file)


def runs_code(task: Any) -> bool:
    """Whether a task runs code that the model writes."""
    return bool(getattr(task, "UNSAFE_CODE", False))
