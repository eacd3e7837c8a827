"""Deprecated: these names have homes of their own; this module goes in 0.3."""

import warnings
from importlib import import_module
from typing import Any

_HOME = {
    **dict.fromkeys(("ATTACKS", "check_settings", "make_attack"), "wagle.attacks.table"),
    **dict.fromkeys(("ASIS", "ROLES", "Scene", "Series", "Trial"), "wagle.attacks.shapes"),
    **dict.fromkeys(("Effect", "effects"), "wagle.attacks.effects"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle.attacks.catalogue' has no attribute {name!r}")
    warnings.warn(
        f"wagle.attacks.catalogue goes in 0.3: import {name} from {_HOME[name]}",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module(_HOME[name]), name)
