"""Deprecated: these names have homes of their own; this module goes in 0.3."""

from __future__ import annotations

from wagle.system.moved import moved

__getattr__ = moved(
    __name__,
    {
        **dict.fromkeys(("ATTACKS", "check_settings", "make_attack"), "attacks.table"),
        **dict.fromkeys(("ASIS", "Scene", "Series", "Trial"), "attacks.shapes"),
        **dict.fromkeys(("Effect", "effects"), "attacks.effects"),
    },
)
