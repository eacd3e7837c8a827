"""Patches: the new values of changed weights, which need their base."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.patch.application import apply as apply
    from wagle.patch.application import undo as undo
    from wagle.patch.extraction import extract as extract
    from wagle.patch.file import Patch as Patch
    from wagle.patch.verification import verify as verify

# Where each public name lives; the module is imported on first use.
_HOME = {
    "Patch": "file",
    "apply": "application",
    "extract": "extraction",
    "undo": "application",
    "verify": "verification",
}
__all__ = ["Patch", "apply", "extract", "undo", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle.patch' has no attribute {name!r}")
    return getattr(import_module(f"wagle.patch.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
