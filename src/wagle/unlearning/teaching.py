"""Teach a model records, with the same trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.records import Source
from wagle.data.tokens import Encoder
from wagle.mask.mask import Mask
from wagle.recipe.sections.training import Training
from wagle.system.processes.leading import Handed, ToldToMain, together
from wagle.unlearning.execution import (
    TrainResult,
    make_supply,
    make_trainer,
    open_checkpoints,
    train_result,
)
from wagle.unlearning.plan import plan_teaching
from wagle.unlearning.sharded import InShards, opened
from wagle.unlearning.training.callback import OnStep


def finetune(
    model: PreTrainedModel | InShards,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    *,
    mask: Mask | None = None,
    checkpoint_folder: str | Path | None = None,
    like: str | Path | None = None,
    allow_other_model: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
    training: Training | None = None,
) -> TrainResult:
    """Teach ``model`` records, in place: plain training on answers or texts.

    Args:
        model: a live causal model.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        records: what to teach.
        mask: train only these weights.
        checkpoint_folder: where a killed run resumes; delete it once the model is saved. None keeps
            nothing.
        like: the model folder that ``save_model`` will imitate, as for ``unlearn``.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: of the order of the records.
        on_step: called with the figures of every step.
        training: epochs, learning rate, batch size and so on.
    """
    held = Handed(mask)
    del mask  # the trainer releases it once the weights are selected
    return together(
        _finetune,
        model,
        tokenizer,
        records,
        training or Training(),
        mask=held,
        checkpoint_folder=checkpoint_folder,
        like=like,
        on_step=None if on_step is None else ToldToMain(on_step),
        allow_other_model=allow_other_model,
        seed=seed,
    )


def _finetune(
    model: PreTrainedModel | InShards,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    training: Training,
    *,
    mask: Handed[Mask],
    checkpoint_folder: str | Path | None,
    like: str | Path | None,
    on_step: OnStep | None,
    **planned: Any,
) -> TrainResult:
    """The work of ``finetune``, on every process."""
    with opened(model) as live:
        chosen = mask.take()
        plan = plan_teaching(live, tokenizer, records, training, mask=chosen, **planned)
        supply = make_supply(live, plan)
        with open_checkpoints(live, plan, chosen, checkpoint_folder) as checkpoints:
            trainer = make_trainer(
                live, plan, chosen, checkpoints, supply, what="teaching", like=like, on_step=on_step
            )
            del chosen  # the trainer releases it too, once the weights are selected
            trainer.run()
            return train_result(trainer)
