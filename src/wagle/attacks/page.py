"""The page docs/attack-settings.md: every attack, made from the table and from its docstring."""

from __future__ import annotations

from wagle.attacks.table import ATTACKS
from wagle.system.docstrings import settings_table, told


def attacks_page() -> str:
    """Every attack with its settings, as Markdown."""
    lines = [
        "# Settings of the attacks",
        "",
        "Made from `wagle.attacks` by `make pages`. How attacks work and what they "
        "find: [attacks.md](attacks.md).",
    ]
    for name, attack in ATTACKS.items():
        lines += ["", f"## {name}", "", told(attack).summary, ""]
        lines += settings_table(attack, hidden=("scene",))
    return "\n".join(lines) + "\n"
