"""The top of the page: the verdict, the run's warnings, and its main figures at a glance."""

from __future__ import annotations

from typing import Any

from wagle.evaluation.verdict import DAMAGED, INCONCLUSIVE, LEAKS, NO_LEAK, OVER
from wagle.report.html.figure_tables import ratio
from wagle.report.html.page import Page
from wagle.report.html.section import Section
from wagle.report.html.sections.weights import counts

_KINDS = {  # CSS classes
    NO_LEAK: "clear",
    LEAKS: "leak",
    DAMAGED: "leak",
    OVER: "over",
    INCONCLUSIVE: "open",
}
_MEANINGS = {
    NO_LEAK: "These probes find no more of the forget set than in a model that never learned it.",
    LEAKS: "At least one probe finds more of the forget set than in a model that never learned it.",
    DAMAGED: "The model lost more of what must stay than its limits allow.",
    OVER: "The model is worse on the forget set than a model that never learned it: the damage goes "
    "too far, and is itself a sign that something was removed.",
    INCONCLUSIVE: "These probes cannot tell whether the forget set is gone.",
}


def verdict(page: Page) -> Section:
    """The verdict with its reasons, the warnings and tiles; it has no link, and its own frame."""
    context = {
        "verdict": {
            "word": page.verdict,
            "kind": _KINDS.get(page.verdict, "open"),
            "meaning": _MEANINGS.get(page.verdict, ""),
            "reasons": page.state.get("after", {}).get("reasons", ["The run has no verdict."]),
        },
        "warnings": [page.short(line) for line in page.warnings],
        "tiles": _tiles(page),
        "weights": counts(page),
    }
    return Section("verdict", "", 0, context)


def _tiles(page: Page) -> dict[str, Any]:
    """Probability at a glance: by role for the forget set, after over before for kept sets."""
    kept = {
        name: share for name in page.kept if (share := ratio(page.figures(name, "probability")))
    }
    found = page.figures("forget", "probability")
    return {
        "forget": {role: found.get(role) for role in ("before", "after", "reference")},
        "kept": kept,
    }
