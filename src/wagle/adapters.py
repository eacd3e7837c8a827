"""Deprecated: ``wagle.model.adapters`` has moved from here; this name goes in 0.3."""

from __future__ import annotations

from wagle.system.moved import moved

__getattr__ = moved(__name__, {"merge_adapter": "model.adapters", "load_merged": "model.adapters"})
