"""The stages of a run in order, one row each.

To add one: a file in ``making`` or ``measuring`` that has the stage's name and defines a function
of that name (and, if something can be checked before the run begins, a function ``check``), its row
here, and a test. A stage's file is imported only when the stage is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.run.opening import Run


@dataclass(frozen=True)
class Stage:
    """One stage: a function of the run that returns what ``state.json`` should say.

    Attributes:
        name: its key in ``state.json``, its file and its function.
        kind: the folder of its file: ``making`` or ``measuring``.
        needs: the stages whose results it reads, all of which come before it.
        writes: what it may leave in the run folder, which is then sealed; a folder ends with a
            slash, and a star stands for the label of a benchmark.
    """

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __call__(self, run: Run) -> dict[str, Any]:
        """Do the work; returns what ``state.json`` should say."""
        found: dict[str, Any] = getattr(self._module(), self.name)(run)
        return found

    def check(self, run: Run) -> None:
        """Check for anything missing or unsuitable before any stage begins.

        Raises:
            WagleError: the stage would fail.
        """
        check = getattr(self._module(), "check", None)
        if check is not None:
            check(run)

    def _module(self) -> Any:
        return import_module(f"wagle.run.stages.{self.kind}.{self.name}")


def _evaluations(role: str) -> tuple[str, ...]:
    """What an evaluating stage leaves: figures, and in private what the model wrote."""
    files = (f"evaluation/{role}", f"private/answers-{role}")
    return tuple(name + tail for name in files for tail in (".json", "-*.json"))


_ROWS = (
    Stage("teach", "making", (), ("base/", "start/", "last-good/")),
    Stage("retrain", "making", (), ("retrained/",)),
    Stage("neighbours", "making", ("teach",), ("private/retain.json",)),
    Stage("reference", "measuring", ("teach", "retrain", "neighbours"), _evaluations("reference")),
    Stage("before", "measuring", ("teach", "neighbours", "reference"), _evaluations("before")),
    Stage("gradients", "making", ("teach", "neighbours"), ("private/gradients/",)),
    Stage("mask", "making", ("gradients",), ("mask.safetensors",)),
    Stage(
        "unlearn",
        "making",
        ("teach", "neighbours", "reference", "mask"),
        ("model/", "adapter/"),
    ),
    Stage(
        "patch",
        "making",
        ("teach", "mask", "unlearn"),
        ("patch.safetensors", "private/undo.safetensors"),
    ),
    Stage(
        "deploy",
        "measuring",
        ("neighbours", "reference", "before", "unlearn"),
        ("served/", "evaluation/served-FORM.json"),
    ),
    Stage(
        "after",
        "measuring",
        ("neighbours", "reference", "before", "unlearn", "deploy"),
        (*_evaluations("after"), "evaluation.json"),
    ),
    Stage(
        "attacks",
        "measuring",
        ("teach", "retrain", "neighbours", "unlearn", "after"),
        ("attacks/",),
    ),
    Stage(
        "controls",
        "measuring",
        ("teach", "neighbours", "reference", "before", "gradients", "attacks"),
        ("controls/",),
    ),
    Stage("ledger", "measuring", ("before", "patch", "after"), ("ledger.json",)),
    Stage("report", "measuring", ("after", "attacks", "controls"), ("report.html",)),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
