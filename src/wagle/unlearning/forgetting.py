"""Unlearn: move the selected weights of a model until it has forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.records import Source
from wagle.data.tokens import Encoder, Tokens
from wagle.mask.mask import Mask
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.processes.leading import AnsweredByMain, Handed, ToldToMain, together
from wagle.unlearning.execution import (
    TrainResult,
    make_supply,
    make_trainer,
    open_checkpoints,
    train_result,
)
from wagle.unlearning.inputs import warn_resting
from wagle.unlearning.objectives.entry import Function
from wagle.unlearning.plan import Plan, plan_unlearning
from wagle.unlearning.sharded import InShards, opened
from wagle.unlearning.training.callback import OnStep
from wagle.unlearning.watching.checks import Evaluate, warn_over_unlearned, warn_unknown
from wagle.unlearning.watching.looks import look_at_set


def unlearn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None = None,
    *,
    forgotten: Source | None = None,
    mask: Mask | None = None,
    objective: str | Function = "npo",
    objective_settings: Mapping[str, Any] | None = None,
    retain_term: str = "auto",
    wrapper: str = "none",
    wrapper_settings: Mapping[str, float] | None = None,
    dynamic_mask: str = "none",
    dynamic_settings: Mapping[str, float] | None = None,
    full_reference: str = "auto",
    full_reference_k: int = 100,
    reference_folder: str | Path | None = None,
    pairing: str = "shuffle",
    anchor: str = "forget",
    stop_when: str | Sequence[str] = "auto",
    best: str | None = None,
    land: bool | Literal["auto"] = "auto",
    reference: Mapping[str, float] | None = None,
    evaluated: Source | None = None,
    evaluation_precision: str = "float32",
    check_every: int = 2,
    evaluate_every: int | None = None,
    evaluate: Evaluate | None = None,
    wrong_answers: bool = True,
    checkpoint_folder: str | Path | None = None,
    like: str | Path | None = None,
    overlap: str = "error",
    allow_other_model: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
    training: Training | None = None,
) -> TrainResult:
    """Make ``model`` forget, in place, by moving only the weights that ``mask`` selects.

    Some keywords, and ``training``, are settings that the recipe's section ``unlearning`` has under
    the same names and with the same defaults: objective, retain_term, wrapper, dynamic_mask and
    their three ``..._settings``, full_reference, full_reference_k, pairing, anchor, stop_when,
    best, land, check_every and evaluate_every. The other keywords are what a run provides: records, mask,
    folders and functions.

    Args:
        model: a live causal model, or a ``peft`` model, whose adapter is trained.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        forget: the records that must go: a path, a data set, or a list.
        retain: the records to keep, for objectives that ask for them.
        forgotten: records that were forgotten earlier: trained as part of the forget set, but no
            rule considers them, as they would meet its goal before the others do.
        mask: a mask of one ratio made for this model; None moves all weights.
        objective: a name in ``objectives.OBJECTIVES``, or a function of the same form.
        objective_settings: override its defaults, such as ``{"beta": 0.1, "retain_weight": 2.0}``.
        retain_term: ``nll``, ``kl``, ``none``, or ``auto``: the objective's own.
        wrapper: ``none``, ``gru``, ``sam``, ``smooth`` or ``task_vector``, which negates what was
            learnt unless its ``scale`` is above 0: for ``forget_finetune``.
        wrapper_settings: override its defaults, such as ``{"rho": 0.01}``.
        dynamic_mask: ``none``, ``sign_agreement`` or ``row_norm``: entries of the gradient that are
            zeroed step by step, within ``mask``.
        dynamic_settings: override its defaults, such as ``{"quantile": 0.99}``.
        full_reference: where an objective gets the original model's full distributions, if it needs
            them: ``copy``, ``adapter``, ``topk`` or ``auto``.
        full_reference_k: the K of ``topk``.
        reference_folder: where the original model's answers are kept, for other runs.
        pairing: how a retain record is drawn for each forget record: ``shuffle``, ``random``,
            ``cycle`` or ``fixed``.
        anchor: the set that defines an epoch.
        stop_when: rules that end training, such as ``retain.probability < 0.9 * before``; ``auto``:
            the forget probability reaches the reference's, or, for an objective without a lower
            bound, the forget NLL reaches that of a uniform guess; an empty list: none.
        best: which checkpoint to keep, such as ``max retain.utility_proxy where forget.probability
            <= 0.1``; ``auto`` is ``min forget.extraction_strength where retain.probability >= 0.95
            * before``; None is the last. Ties go to the earlier one; if none meets the conditions,
            the one with the best figure is kept, with a warning.
        land: when a rule holds, go back between the last two looks, along the line between their
            selected weights, to where its figure lies in the middle third of the reference's band
            (for any other limit: at it, or at most 5 % beyond); with ``best``, to the edge of its
            conditions. ``auto``: if there is a reference.
        reference: figures of the reference, such as ``{"forget.probability": 0.1}``; the ends of
            its 95 % interval, the band, are ``forget.probability.low`` and ``.high``.
        evaluated: the forget records that evaluations ask about, and so those that rules and
            landing look at; None: all.
        evaluation_precision: of the matrix products of an evaluation; landing measures in it.
        check_every: steps between looks at the rules; once the forget probability is within twice
            the reference's, there is one after every step.
        evaluate_every: steps between looks at all figures, starting at step 0; None: never. A look
            uses at most 64 fixed records of each set, or all forget records if there is a
            reference.
        evaluate: gives further figures of the live model at those steps.
        wrong_answers: also score the wrong answers of retain records that have some
            (``perturbed_answers``): ``retain.true_better`` and ``retain.utility_proxy``.
        checkpoint_folder: where a killed run resumes when it is called again in the same way, with
            the model as it was; delete it once the model is saved. None keeps nothing.
        like: the model folder that ``save_model`` will imitate: at the end the weights are rounded
            to the precision that they have there. None: the model's own.
        overlap: ``error``, or ``allow`` records that are in both sets.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: all draws are functions of (seed, epoch, record id).
        on_step: called with the figures of every step that runs here.
        training: epochs, learning rate, batch size and so on.

    Returns:
        What happened; unselected weights have been checked to be bit-identical.

    Raises:
        TrainingStopped: a loss is not finite, or the records to keep were lost; the model is then
            back at its last good checkpoint, or as it was, and its checkpoints are deleted.
        WagleError: bad records or settings, a mask for another model, or a run that changed
            nothing.
    """
    asked = dict(locals())  # every argument by its name
    names = [name for name in asked if name in Unlearning.model_fields]
    named = {name: asked.pop(name) for name in names}
    return unlearn_with(_settings(asked.pop("training") or Training(), named), **asked)


def _settings(training: Training, named: Mapping[str, Any]) -> Unlearning:
    """The settings of a keyword call; each is checked where it is used, not here."""
    own = {name: getattr(training, name) for name in Training.model_fields}
    more: dict[str, Any] = {
        name: {} for name, value in named.items() if value is None and "_settings" in name
    }
    return Unlearning.model_construct(**{**own, **named, **more})


def unlearn_with(
    settings: Unlearning,
    model: PreTrainedModel | InShards,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None = None,
    *,
    forgotten: Source | None = None,
    mask: Mask | None = None,
    reference_folder: str | Path | None = None,
    reference: Mapping[str, float] | None = None,
    evaluated: Source | None = None,
    evaluation_precision: str = "float32",
    evaluate: Evaluate | None = None,
    wrong_answers: bool = True,
    checkpoint_folder: str | Path | None = None,
    like: str | Path | None = None,
    overlap: str = "error",
    allow_other_model: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> TrainResult:
    """``unlearn`` with its settings in one object, the section ``unlearning`` of a recipe.

    ``lora``, ``earlier`` and ``when_unknown`` in that section concern a run and are not read. The other
    arguments, the result and the errors are those of ``unlearn``.
    """
    asked = {**locals(), "mask": Handed(mask)}
    del mask  # the trainer releases it once the weights are selected
    if evaluate is not None:
        asked["evaluate"] = AnsweredByMain(evaluate)
    if on_step is not None:
        asked["on_step"] = ToldToMain(on_step)
    return together(_unlearn, **asked)


def _unlearn(
    settings: Unlearning,
    model: PreTrainedModel | InShards,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None,
    *,
    mask: Handed[Mask],
    reference_folder: str | Path | None,
    checkpoint_folder: str | Path | None,
    like: str | Path | None,
    on_step: OnStep | None,
    **planned: Any,
) -> TrainResult:
    """The work of ``unlearn_with``, on every process."""
    with opened(model) as live:
        chosen = mask.take()
        plan = plan_unlearning(live, tokenizer, forget, retain, settings, mask=chosen, **planned)
        if not plan.sets:  # the objective ``none``
            return TrainResult([], _count(live, chosen), 0, "end", plan.chosen.describe())
        warn_resting(plan.chosen, plan.epochs)
        supply = make_supply(live, plan, reference_folder)
        with open_checkpoints(live, plan, chosen, checkpoint_folder) as checkpoints:
            trainer = make_trainer(
                live,
                plan,
                chosen,
                checkpoints,
                supply,
                what="unlearning",
                like=like,
                on_step=on_step,
            )
            del chosen  # the trainer releases it too, once the weights are selected
            trainer.run()
            return _warned(train_result(trainer), live, plan)


def _warned(result: TrainResult, model: nn.Module, plan: Plan) -> TrainResult:
    """The result; warns if the trained model never knew the forget set, or went past its target."""
    gone, known = plan.records, plan.checks.known
    warn_unknown(known, len(gone), questions=all(r.kind == "qa" for r in gone))
    tokens = plan.looked.sets["forget"]
    warn_over_unlearned(look_at_set(model, "forget", tokens, plan.settings.precision), known)
    return result


def forget_probability(
    model: nn.Module, tokens: Sequence[Tokens], precision: str = "float32"
) -> float:
    """Mean over records of exp(-mean NLL) of the answer, in training's own precision."""
    return look_at_set(model, "forget", tokens, precision)["forget.probability"]


def _count(model: nn.Module, mask: Mask | None) -> int:
    """How many weights may move."""
    if mask is not None:
        return mask.count
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
