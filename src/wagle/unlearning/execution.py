"""From a plan to a trained model: what ``unlearn`` and ``finetune`` have in common."""

from __future__ import annotations

import fnmatch
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from wagle.mask.mask import Mask
from wagle.model.saving import saved_dtypes
from wagle.system.errors import WagleError
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.plan import Plan
from wagle.unlearning.training.callback import OnStep
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.trainer import UnlearnTrainer, move_to_training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        history: per step ``forget_nll``, ``retain_nll`` (mean NLL of the step's records, nats),
            ``forget_loss``, ``retain_loss`` (the objective's terms), ``grad_norm`` and, at steps
            with a look, ``forget.probability`` and the like. With ``evaluate_every`` it starts with
            step 0, the model before. For ``task_vector``, and after landing, the last step's
            figures are those of the model at the end, and ``on_step`` is called twice for that
            step.
        selected: how many weights the mask selects.
        changed: how many of them differ from before, in the precision in which they are saved.
        stopped: the rule that ended training, such as ``forget.probability <= reference``, or
            ``end``.
        objective: the objective's name, retain term, weights and all its settings.
        best: ``step`` and ``figures`` of the checkpoint that the model holds, and whether it
            ``meets`` the conditions, if ``best`` was given; else None. If the model was taken to
            the edge of the conditions, ``landed`` has the two steps (``between``), the ``share`` of
            the way and the ``figures`` there.
        landed: where the run landed after a rule held: ``figure``, ``value``, ``aim``, ``band``,
            ``between`` (two steps), ``share`` of the way and ``looks``; else None.
    """

    history: list[dict[str, Any]]
    selected: int
    changed: int
    stopped: str
    objective: dict[str, Any]
    best: dict[str, Any] | None = None
    landed: dict[str, Any] | None = None


def make_supply(model: PreTrainedModel, plan: Plan, folder: str | Path | None = None) -> Supply:
    """Move a model to the device it trains on, and compute what the objective needs from it.

    Args:
        model: the model before training.
        plan: the plan of the run.
        folder: where the original model's answers are kept, for other runs.
    """
    move_to_training(model)
    return Supply(
        model,
        plan.chosen,
        plan.sets,
        planned=plan.pairs.pairs,
        encoder=plan.encoder,
        original=plan.original,
        dtype=plan.settings.precision,
        folder=None if folder is None else Path(folder),
        seed=plan.seed,
    )


def open_checkpoints(
    model: nn.Module, plan: Plan, mask: Mask | None, folder: str | Path | None
) -> Checkpoints:
    """The checkpoints of a run; without a folder they last only as long as this process.

    Args:
        model: the model before training.
        plan: the plan of the run.
        mask: which weights may move.
        folder: where a killed run resumes.
    """
    if folder is None:
        return Checkpoints(None, {})
    return Checkpoints(Path(folder), plan.checkpoint_key(model, mask))


def make_trainer(
    model: PreTrainedModel,
    plan: Plan,
    mask: Mask | None,
    checkpoints: Checkpoints,
    supply: Supply,
    *,
    what: str,
    like: str | Path | None = None,
    on_step: OnStep | None = None,
) -> UnlearnTrainer:
    """The trainer that carries out a plan.

    Args:
        model: trained in place.
        plan: the plan of the run.
        mask: which weights may move; the trainer releases it once they are selected.
        checkpoints: where a killed run resumes.
        supply: from ``make_supply``.
        what: shown by the progress bar.
        like: the model folder that ``save_model`` will take precisions from; None: the model's own.
        on_step: called with every step's figures.
    """
    return UnlearnTrainer(
        model,
        plan.pairs,
        mask=mask,
        only=_only(model, mask, plan.chosen),
        saved=None if like is None else saved_dtypes(model, like),
        chosen=plan.chosen,
        supply=supply,
        gradient=plan.gradient,
        training=plan.settings,
        seed=plan.seed,
        what=what,
        checks=plan.checks,
        checkpoints=checkpoints,
        epochs=plan.epochs,
        on_step=on_step,
    )


def _only(model: nn.Module, mask: Mask | None, chosen: Chosen) -> set[str] | None:
    """The parameters that an objective trains if there is no mask."""
    if mask is not None or chosen.entry.trains is None or hasattr(model, "disable_adapter"):
        return None
    patterns = chosen.entry.trains(chosen.settings)
    names = {
        name
        for name, _ in model.named_parameters()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not names:
        logger.warning(
            "objective %s without a mask trains %s, and the model has none of these; all weights "
            "are trained",
            chosen.name,
            ", ".join(patterns),
        )
    return names or None


def train_result(trainer: UnlearnTrainer) -> TrainResult:
    """The result of a trainer that has run.

    Raises:
        WagleError: nothing changed in the precision in which the weights are saved.
    """
    course, selected, changed = trainer.course, trainer.course.selected, trainer.changed
    if changed == 0:
        course.checkpoints.clear()  # resuming from them would end the same way
        kinds = [str(kind).removeprefix("torch.") for kind in selected.saved]
        coarse = course.training.rounding == "nearest" and "bfloat16" in kinds
        raise WagleError(
            f"the run changed none of its {selected.count} selected weights in "
            f"{' and '.join(kinds)}, the precision they are saved in; raise the learning rate"
            + ", or set rounding: stochastic"
            * coarse
        )
    return TrainResult(
        course.history,
        selected.count,
        changed,
        course.stopped_by or "end",
        course.chosen.describe(),
        course.best,
        None if course.landed is None else course.landed.told(),
    )
