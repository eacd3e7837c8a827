"""The attacks by name, with their settings: every file of ``kinds/`` is one.

To add one: a file there with a function of the attack's name, and its settings in the test of this
table. The function takes a ``Scene`` and, as keywords, its settings; it returns a ``Trial``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wagle.attacks.shapes import Scene, Trial
from wagle.evaluation.table import bind
from wagle.system.plugins import find
from wagle.system.shelf import Shelf

ATTACKS: Shelf[Trial] = Shelf("wagle.attacks.kinds")


def make_attack(name: str, scene: Scene, settings: Mapping[str, Any]) -> Trial:
    """Prepare an attack: anything missing or wrong is an error here, before any work.

    Args:
        name: a name in ATTACKS, or of a plug-in.
        scene: what the attack works with.
        settings: the keywords of its function.
    """
    return find(ATTACKS, name, "attack")(scene, **check_settings(name, settings))


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an attack, checked against the keywords of its function."""
    return bind(find(ATTACKS, name, "attack"), settings, f"attack {name}", hidden=("scene",))
