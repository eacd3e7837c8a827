"""Models: loading, structure, log-probabilities, weights on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.model.loading import load_model as load_model
    from wagle.model.loading import load_tokenizer as load_tokenizer
    from wagle.model.saving import save_model as save_model
    from wagle.model.weights import fingerprint as fingerprint

# Where each public name lives; the module is imported on first use.
_HOME = {
    "fingerprint": "weights",
    "load_model": "loading",
    "load_tokenizer": "loading",
    "save_model": "saving",
}
__all__ = ["fingerprint", "load_model", "load_tokenizer", "save_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle.model' has no attribute {name!r}")
    return getattr(import_module(f"wagle.model.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
