"""Stopping early: the stages that are left out if there is nothing to unlearn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wagle.system.files.atomic import write_json

if TYPE_CHECKING:
    from wagle.run.opening import Run

PASSED_OVER = (
    "gradients",
    "mask",
    "unlearn",
    "patch",
    "after",
    "attacks",
    "controls",
    "ledger",
)
"""The stages that a run leaves out if there is nothing to unlearn."""


def pass_over(run: Run, name: str) -> bool:
    """Enter a stage as left out if there is nothing to unlearn; returns whether it was."""
    why = run.state["stages"].get("before", {}).get("unknown")
    if not why or name not in PASSED_OVER:
        return False

    def nothing() -> dict[str, Any]:
        from wagle.evaluation.figures import ROLES
        from wagle.evaluation.verdict import INCONCLUSIVE

        told = {"skipped": "the model does not know the forget set", "records": None}
        if name != "after":
            return told
        found = {role: run.evaluation(role) for role in ROLES}
        write_json(
            run.folder / "evaluation.json",
            {role: one.summary() if one is not None else None for role, one in found.items()},
        )
        return {**told, "verdict": INCONCLUSIVE, "reasons": list(why)}

    run.carry_out(name, nothing)
    return True
