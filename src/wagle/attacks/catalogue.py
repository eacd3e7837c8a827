"""Deprecated: these names now have their own modules; this one will be removed in 0.3."""

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
