"""Masks: which weights may change."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.mask.exchange import export_mask as export_mask
    from wagle.mask.exchange import import_mask as import_mask
    from wagle.mask.mask import Mask as Mask

# Where each public name lives; the module is imported on first use.
_HOME = {
    "Mask": "mask",
    "export_mask": "exchange",
    "import_mask": "exchange",
}
__all__ = ["Mask", "export_mask", "import_mask"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle.mask' has no attribute {name!r}")
    return getattr(import_module(f"wagle.mask.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
