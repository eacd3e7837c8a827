"""Teach a model records, with the same trainer."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, as_encoder
from wagle.mask.mask import Mask
from wagle.model.saving import saved_dtypes
from wagle.model.structure import check_length
from wagle.recipe.sections.training import Training
from wagle.unlearning.forgetting import (
    TrainResult,
    checkpoint_key,
    no_checks,
    plan_pairs,
    train_result,
)
from wagle.unlearning.inputs import Supply
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.original import choose_original
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.steps import Gradient
from wagle.unlearning.training.trackers import check_trackers
from wagle.unlearning.training.trainer import OnStep, UnlearnTrainer, move_to_training


def finetune(
    model: PreTrainedModel,
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
    """Teach ``model`` records, in place: plain training on answers or texts, with the same trainer.

    Args:
        model: a live causal model.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        records: what to teach.
        mask: teach it into these weights only.
        checkpoint_folder: where a killed run goes on; delete it once the model is saved. None keeps
            nothing.
        like: the model folder that ``save_model`` will write the model like, as for ``unlearn``.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: of the order of the records.
        on_step: called with the figures of every step.
        training: epochs, learning rate, batch size and so on.
    """
    settings = training or Training()
    check_optimizer(settings)
    check_trackers(settings.report_to)
    chosen = choose_objective("retain_finetune")
    encoder = as_encoder(tokenizer)
    sets = {"retain": encoder.encode(read_records(records, name="records", seed=seed))}
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    check_length(model, max(len(t.ids) for t in sets["retain"]), "the longest record")
    pairs, epochs = plan_pairs(sets, settings, seed, "shuffle", "retain")
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    key = checkpoint_key(model, pairs, mask, settings, seed, {}) if folder else {}
    move_to_training(model)
    with Checkpoints(folder, key) as checkpoints:
        trainer = UnlearnTrainer(
            model,
            pairs,
            mask=mask,
            saved=None if like is None else saved_dtypes(model, like),
            chosen=chosen,
            supply=Supply(
                model,
                chosen,
                sets,
                planned=pairs.pairs,
                encoder=encoder,
                original=choose_original(model, "auto", 1),
                dtype=settings.precision,
                folder=None,
                seed=seed,
            ),
            gradient=Gradient(),
            training=settings,
            seed=seed,
            what="teaching",
            checks=no_checks(model, settings),
            checkpoints=checkpoints,
            epochs=epochs,
            on_step=on_step,
        )
        del mask  # the trainer lets go of it too, once the weights are selected
        trainer.run()
        return train_result(trainer)
