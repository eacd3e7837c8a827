"""The benchmarks by name, and their settings: the keywords of the function that makes the task.

To add one, see ``wagle.evaluation.benchmarks``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Task
from wagle.system.errors import WagleError, no_setting
from wagle.system.plugins import find
from wagle.system.shelf import Shelf

BENCHMARKS: Shelf[Task] = Shelf("wagle.evaluation.benchmarks")


def make_task(name: str, encoder: Encoder, settings: Mapping[str, Any], *, seed: int = 0) -> Task:
    """Make a benchmark ready.

    Args:
        name: a name in BENCHMARKS, or of a plug-in.
        encoder: the model's encoder.
        settings: the keywords of the benchmark's function.
        seed: for its draws and intervals.

    Raises:
        WagleError: the benchmark or a setting is unknown, or a setting is missing or of the wrong
            type.
    """
    return find_benchmark(name)(encoder, **check_settings(name, settings), seed=seed)


def find_benchmark(name: str) -> Callable[..., Task]:
    """The function that makes a benchmark's task."""
    return find(BENCHMARKS, name, "benchmark")


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a benchmark, checked against the keywords of its function."""
    return bind(find_benchmark(name), settings, f"benchmark {name}", hidden=("encoder", "seed"))


def bind(
    function: Callable[..., Any], given: Mapping[str, Any], what: str, *, hidden: tuple[str, ...]
) -> dict[str, Any]:
    """Check settings against the keywords of a function.

    Args:
        function: the function whose annotations say what a setting may be.
        given: the settings.
        what: whose they are, for messages.
        hidden: parameters that are not settings.
    """
    hints = get_type_hints(function)
    known = {n: p for n, p in inspect.signature(function).parameters.items() if n not in hidden}
    for key in given:
        if key not in known:
            raise no_setting(what, key, known, listed=" (it has {})")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            raise WagleError(f"{what} needs the setting {key}")
    checked = {}
    for key, value in given.items():
        try:
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
            checked[key] = adapter.validate_python(value)
        except ValidationError as error:
            raise WagleError(
                f"{what}: {key} is {value!r}; {error.errors()[0]['msg'].lower()}"
            ) from None
    return checked
