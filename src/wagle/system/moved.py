"""Old import paths of public names: they still work, and warn where the name lives now."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

GONE_IN = "0.3"


def moved(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module from which names have moved.

    Args:
        module: its dotted name.
        homes: for each name, the module of ``wagle`` that holds it now.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = f"wagle.{homes[name]}"
        warnings.warn(
            f"{module}.{name} will be removed in {GONE_IN}: import {name} from {home}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(home), name)

    return find
