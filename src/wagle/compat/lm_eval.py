"""What wagle needs from lm-eval beyond its documented names. Tested with lm_eval 0.4.13.

The library's public names give the tasks by name alone; which data set a task reads, which file it
comes from and what a group holds are only in its index.
Source: https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Parts: TypeAlias = Callable[
    [Sequence[Any], Sequence[int], Callable[[list[Any]], list[Any]]], list[Any]
]
"""Splits requests, of so many tokens each, and joins what a function says to each part."""


def task_index(manager: Any) -> dict[str, Any]:
    """The entries of a ``TaskManager``'s tasks, groups and tags, by name; changes take effect."""
    index: dict[str, Any] = manager.task_index
    return index


def task_settings(entry: Any) -> dict[str, Any] | None:
    """The settings in the file of an entry, with those it includes; None for a tag."""
    settings: dict[str, Any] | None = entry.cfg
    return settings


def task_file(entry: Any) -> Path | None:
    """The file that an entry was read from; None for one defined in Python or by tags."""
    file: Path | None = entry.yaml_path
    return file


def tagged_tasks(entry: Any) -> set[str]:
    """The names of the tasks that have a tag."""
    names: set[str] = entry.tags
    return names


def with_file(entry: Any, file: Path) -> Any:
    """The entry, to be loaded from another file."""
    return dataclasses.replace(entry, yaml_path=file)


def runs_code(task: Any) -> bool:
    """Whether a task runs code written by the model."""
    return bool(getattr(task, "UNSAFE_CODE", False))


def in_parts(kind: Any, parts: Parts) -> Any:
    """A model class of the library, ``HFLM``, that has its requests answered part by part.

    Every part is answered as the class itself answers all of them.
    Source: https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/models/huggingface.py
    """

    class InParts(kind):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:
            def answer(part: list[Any]) -> list[Any]:
                return list(kind._loglikelihood_tokens(self, part, disable_tqdm=True))

            lengths = [len(context) + len(continuation) for _, context, continuation in requests]
            return parts(requests, lengths, answer)

        def generate_until(self, requests: list[Any], **_: Any) -> list[Any]:
            def answer(part: list[Any]) -> list[Any]:
                return list(kind.generate_until(self, part, disable_tqdm=True))

            lengths = [len(self.tok_encode(request.args[0])) for request in requests]
            return parts(requests, [length + self.max_gen_toks for length in lengths], answer)

    return InParts
