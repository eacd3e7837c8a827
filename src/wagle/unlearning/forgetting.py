"""Unlearn: move the selected weights of a model until it has forgotten."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.batches import Pairs, plan
from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, Tokens, as_encoder
from wagle.mask.mask import Mask
from wagle.model.saving import saved_dtypes
from wagle.model.structure import check_length
from wagle.model.weights import fingerprint
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.inputs import Supply, make_sets, sides, warn_resting
from wagle.unlearning.objectives.choice import Chosen, choose_objective
from wagle.unlearning.objectives.entry import Function
from wagle.unlearning.original import choose_original, tokens_digest
from wagle.unlearning.training.checkpoints import Checkpoints
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.steps import Gradient
from wagle.unlearning.training.trackers import check_trackers
from wagle.unlearning.training.trainer import OnStep, UnlearnTrainer, move_to_training
from wagle.unlearning.watching.checks import (
    Checks,
    Evaluate,
    make_checks,
    stop_rules,
    warn_over_unlearned,
    warn_unknown,
)
from wagle.unlearning.watching.looks import Looked, make_looked, set_figures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        history: per step ``forget_nll``, ``retain_nll`` (mean NLL of the step's records, nats),
            ``forget_loss``, ``retain_loss`` (the objective's terms), ``grad_norm`` and, where it was
            looked at, ``forget.probability`` and its kind. With ``evaluate_every`` it begins with
            step 0, the model before. Those of the last step of a ``task_vector`` are of the scaled
            model, and ``on_step`` is told of that step twice.
        selected: how many weights the mask selects.
        changed: how many of them differ from before, in the precision that is saved.
        stopped: the rule that ended training, such as ``forget.probability <= reference``, or
            ``end``.
        objective: the objective's name, retain term, weights and all its settings.
        best: ``step`` and ``figures`` of the checkpoint that the model holds, and whether it
            ``meets`` the conditions, where ``best`` was asked for; else None.
    """

    history: list[dict[str, Any]]
    selected: int
    changed: int
    stopped: str
    objective: dict[str, Any]
    best: dict[str, Any] | None = None


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
    reference: Mapping[str, float] | None = None,
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

    Args:
        model: a live causal model, or a ``peft`` model, of which the adapter is trained.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        forget: the records that must go: a path, a data set, or a list.
        retain: the records to keep, for objectives that ask for them.
        forgotten: records that were forgotten before: trained as a part of the forget set, but no
            rule looks at them, as they would meet its goal before the others do.
        mask: a single ratio made for this model; None moves all weights.
        objective: a name in ``objectives.OBJECTIVES``, or a function of their shape.
        objective_settings: over its defaults, such as ``{"beta": 0.1, "retain_weight": 2.0}``.
        retain_term: ``nll``, ``kl``, ``none``, or ``auto``: the objective's own.
        wrapper: ``none``, ``gru``, ``sam``, ``smooth`` or ``task_vector``, which turns what was learnt
            around unless its ``scale`` is above 0: for ``forget_finetune``.
        wrapper_settings: over its defaults, such as ``{"rho": 0.01}``.
        dynamic_mask: ``none``, ``sign_agreement`` or ``row_norm``: entries of the gradient that are
            zeroed step by step, within ``mask``.
        dynamic_settings: over its defaults, such as ``{"quantile": 0.99}``.
        full_reference: how whole distributions of the original model are had, where an objective
            needs them: ``copy``, ``adapter``, ``topk`` or ``auto``.
        full_reference_k: the K of ``topk``.
        reference_folder: where what the original model says is kept, for other runs.
        pairing: how a retain record is drawn for each forget record: ``shuffle``, ``random``,
            ``cycle`` or ``fixed``.
        anchor: the set that defines an epoch.
        stop_when: rules that end training, such as ``retain.probability < 0.9 * before``; ``auto``:
            the forget probability reaches that of the reference, and for an objective without a
            lower bound the forget NLL that of a uniform guess; an empty list: none.
        best: which checkpoint is kept, such as ``max retain.utility_proxy where forget.probability
            <= 0.1``; ``auto`` is ``min forget.extraction_strength where retain.probability >= 0.95 *
            before``; None is the last. Of equals the earlier is kept; if none meets the conditions,
            the one with the best figure, with a warning.
        reference: figures of the reference, such as ``{"forget.probability": 0.1}``.
        check_every: steps between two looks at the rules; within twice the reference's forget
            probability, every step is looked at.
        evaluate_every: steps between two looks at all figures, from step 0 on; None: never. Looks
            are at no more than 64 fixed records of each set; at all forget records beside a reference.
        evaluate: gives further figures of the live model at those steps.
        wrong_answers: look at those of retain records too, where they have some (``perturbed_answers``):
            ``retain.true_better`` and ``retain.utility_proxy``.
        checkpoint_folder: where a killed run goes on when it is called again in the same way, with
            the model as it was; delete it once the model is saved. None keeps nothing.
        like: the model folder that ``save_model`` will write the model like: at the end the weights
            are rounded to the precision that they have there. None: the model's own.
        overlap: ``error``, or ``allow`` records that stand in both sets.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: all draws are functions of (seed, epoch, record id).
        on_step: called with the figures of every step that runs here.
        training: epochs, learning rate, batch size and so on.

    Returns:
        What happened; unselected weights have been checked to be bit-identical.

    Raises:
        TrainingStopped: a loss that is not finite, or records to keep that are lost; the model is
            then back at its last good checkpoint, or as it was, and its checkpoints are deleted.
        WagleError: bad records or settings, a mask of another model, or a run that changed nothing.
    """
    chosen = choose_objective(objective, objective_settings, retain_term)
    gradient = Gradient(wrapper, wrapper_settings, dynamic_mask, dynamic_settings, seed)
    rules = stop_rules(
        stop_when, bounded=chosen.entry.bounded, reference=reference, turned=gradient.turns
    )
    gradient.check(chosen, rules, best)
    if wrapper == "task_vector" and hasattr(model, "disable_adapter"):
        raise WagleError(
            "task_vector does not go with LoRA: turning both factors around leaves their product as it "
            "was; train the weights themselves"
        )
    settings = training or Training()
    check_optimizer(settings)
    check_trackers(settings.report_to)
    encoder = as_encoder(tokenizer)
    gone = read_records(forget, name="forget", seed=seed)
    kept = [] if retain is None else read_records(retain, name="retain", seed=seed)
    again = [] if forgotten is None else read_records(forgotten, name="forgotten", seed=seed)
    check_disjoint([*gone, *again], kept, allow=overlap == "allow")
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    sets = make_sets(
        chosen, encoder, [*gone, *again], kept, vocabulary=vocabulary(model), seed=seed
    )
    looked = make_looked(
        encoder,
        gone,
        kept,
        whole=reference is not None,
        seed=seed,
        wrong_answers=wrong_answers,
    )
    for tokens in [*sets.values(), looked.tokens]:
        check_length(model, max(len(t.ids) for t in tokens), "the longest record")
    checks = make_checks(
        looked,
        vocabulary=vocabulary(model),
        rules=rules,
        best=best,
        reference=reference,
        precision=settings.precision,
        check_every=check_every,
        evaluate_every=evaluate_every,
        evaluate=evaluate,
    )
    if not sets:  # the objective ``none``: nothing to train on
        return TrainResult([], _count(model, mask), 0, "end", chosen.describe())
    pairs, epochs = plan_pairs(sets, settings, seed, pairing, anchor)
    warn_resting(chosen, epochs)
    move_to_training(model)
    supply = Supply(
        model,
        chosen,
        sets,
        planned=pairs.pairs,
        encoder=encoder,
        original=choose_original(model, full_reference, full_reference_k),
        dtype=settings.precision,
        folder=None if reference_folder is None else Path(reference_folder),
        seed=seed,
    )
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    more = {
        "objective": chosen.describe(),
        "gradient": [wrapper, gradient.settings, dynamic_mask, gradient.dynamic],
        "rules": [*map(str, rules), best, dict(reference or {}), check_every, evaluate_every],
        "full_reference": [full_reference, full_reference_k],
    }
    key = checkpoint_key(model, pairs, mask, settings, seed, more) if folder else {}
    with Checkpoints(folder, key) as checkpoints:
        trainer = UnlearnTrainer(
            model,
            pairs,
            mask=mask,
            only=_only(model, mask, chosen),
            saved=None if like is None else saved_dtypes(model, like),
            chosen=chosen,
            supply=supply,
            gradient=gradient,
            training=settings,
            seed=seed,
            what="unlearning",
            checks=checks,
            checkpoints=checkpoints,
            epochs=epochs,
            on_step=on_step,
        )
        del mask  # the trainer lets go of it too, once the weights are selected
        trainer.run()
        result = train_result(trainer)
    warn_unknown(checks.known, len(gone), questions=all(r.kind == "qa" for r in gone))
    warn_over_unlearned(
        set_figures(model, "forget", looked.sets["forget"], settings.precision), checks.known
    )
    return result


def forget_probability(
    model: nn.Module, tokens: Sequence[Tokens], precision: str = "float32"
) -> float:
    """Mean over records of exp(-mean NLL) of the answer; training looks in its own precision."""
    return set_figures(model, "forget", tokens, precision)["forget.probability"]


def vocabulary(model: nn.Module) -> int:
    """How many tokens the model gives a logit."""
    owner: Any = model
    return int(owner.get_output_embeddings().weight.shape[0])


def no_checks(model: nn.Module, settings: Training) -> Checks:
    return make_checks(
        Looked(),
        vocabulary=vocabulary(model),
        rules=[],
        best=None,
        reference=None,
        precision=settings.precision,
        check_every=1,
        evaluate_every=None,
        evaluate=None,
    )


def plan_pairs(
    sets: Mapping[str, list[Tokens]], training: Training, seed: int, pairing: str, anchor: str
) -> tuple[Pairs, float]:
    """The planned records, and how many epochs of the anchor set they are."""
    forget, retain = sides(sets)
    first, second = (next(iter(side.values()), []) for side in (forget, retain))
    size = len(second) if not first or (anchor == "retain" and second) else len(first)
    steps = training.max_steps
    wanted = None if steps is None else steps * training.batch_size * training.accumulation
    epochs = training.epochs if wanted is None else -(-wanted // size)
    planned = plan(first, second, epochs=epochs, seed=seed, pairing=pairing, anchor=anchor)
    planned = planned[:wanted]
    return Pairs(planned, forget, retain), len(planned) / size


def _only(model: nn.Module, mask: Mask | None, chosen: Chosen) -> set[str] | None:
    """The parameters that an objective trains where no mask says which."""
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
            "objective %s trains %s where there is no mask, and the model has none of these; all "
            "weights are trained",
            chosen.name,
            ", ".join(patterns),
        )
    return names or None


def checkpoint_key(
    model: nn.Module,
    pairs: Pairs,
    mask: Mask | None,
    training: Training,
    seed: int,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """What a checkpoint depends on."""
    digest = hashlib.sha256(json.dumps(pairs.pairs).encode())
    for side in (pairs.forget, pairs.retain):
        for name, tokens in side.items():
            digest.update(f"{name} {tokens_digest(tokens)}".encode())
    settings = training.model_dump(mode="json")
    for free in ("checkpoint_minutes", "report_to"):
        del settings[free]  # they do not change the result
    names = set(Training.model_fields)
    return {
        "model": fingerprint(model),
        "mask": None if mask is None else mask.digest(),
        "records": digest.hexdigest(),
        "training": {k: v for k, v in settings.items() if k in names},
        "seed": seed,
        **more,
    }


def _count(model: nn.Module, mask: Mask | None) -> int:
    if mask is not None:
        return mask.count
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train_result(trainer: UnlearnTrainer) -> TrainResult:
    assert trainer.selected is not None
    changed = trainer.changed
    if changed == 0:
        trainer.checkpoints.clear()  # from which the same run would come to the same end
        kinds = [str(kind).removeprefix("torch.") for kind in trainer.selected.saved]
        coarse = trainer.training.rounding == "nearest" and "bfloat16" in kinds
        raise WagleError(
            f"the run changed none of its {trainer.selected.count} selected weights in "
            f"{' and '.join(kinds)}, as it is saved; raise the learning rate"
            + ", or set rounding: stochastic"
            * coarse
        )
    return TrainResult(
        trainer.history,
        trainer.selected.count,
        changed,
        trainer.stopped_by or "end",
        trainer.chosen.describe(),
        trainer.best,
    )
