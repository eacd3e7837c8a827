"""Unlearn and teach: the public functions around the trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.batches import Pairs, plan, token_batches
from wagle.data.records import Source, check_disjoint, read_records
from wagle.data.tokens import Encoder, Tokens, as_encoder
from wagle.errors import WagleError
from wagle.mask import Mask
from wagle.model import Scored, check_length, records_nll
from wagle.unlearning.objectives import Objective, needs, resolve, retain_finetune
from wagle.unlearning.options import Training
from wagle.unlearning.trainer import OnStep, UnlearnTrainer

logger = logging.getLogger(__name__)
_EVAL_TOKENS = 2048  # padded tokens per forward pass without gradients


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        history: per step ``forget_nll``, ``retain_nll`` (mean NLL of the step's records, nats),
            ``forget_loss``, ``retain_loss`` (the objective's terms), ``grad_norm`` and, where it was
            checked, ``forget_probability``.
        selected: how many weights the mask selects.
        changed: how many of them differ from before, in the model's own precision.
        stopped: ``reference`` (the forget probability reached it) or ``end``.
        objective: the objective's name and all its settings.
    """

    history: list[dict[str, Any]]
    selected: int
    changed: int
    stopped: str
    objective: dict[str, Any]


def unlearn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None = None,
    *,
    mask: Mask | None = None,
    objective: str | Objective = "npo",
    objective_settings: Mapping[str, Any] | None = None,
    pairing: str = "shuffle",
    anchor: str = "forget",
    stop_at: float | None = None,
    check_every: int = 2,
    overlap: str = "error",
    allow_other_model: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
    training: Training | None = None,
) -> TrainResult:
    """Make ``model`` forget, in place, by moving only the weights that ``mask`` selects.

    Args:
        model: a live causal model.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        forget: the records that must go: a path, a data set, or a list.
        retain: the records to keep, for objectives that ask for them.
        mask: a single ratio made for this model; None moves all weights.
        objective: ``npo``, ``grad_diff``, ``grad_ascent``, ``wga``, or a function of their shape.
        objective_settings: over the defaults of the objective, such as ``{"beta": 0.1}``.
        pairing: how a retain record is drawn for each forget record: ``shuffle``, ``random``,
            ``cycle`` or ``fixed``.
        anchor: the set that defines an epoch.
        stop_at: the forget probability of the reference: training ends when it is reached.
        check_every: steps between two looks at the forget probability; within twice ``stop_at``,
            every step is looked at.
        overlap: ``error``, or ``allow`` records that stand in both sets.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: all draws are functions of (seed, epoch, record id).
        on_step: called with the figures of every step.
        training: epochs, learning rate, batch size and so on.

    Returns:
        What happened; unselected weights have been checked to be bit-identical.

    Raises:
        WagleError: bad records or settings, a mask of another model, a loss that is not finite,
            or a run that changed nothing.
    """
    function = resolve(objective)
    asked = needs(function, objective_settings)
    encoder = as_encoder(tokenizer)
    gone = read_records(forget, name="forget", seed=seed)
    kept = [] if retain is None else read_records(retain, name="retain", seed=seed)
    if "retain" in asked.sets and not kept:
        raise WagleError(f"objective {objective} needs a retain set; give one")
    check_disjoint(gone, kept, allow=overlap == "allow")
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    forget_tokens = encoder.encode(gone)
    retain_tokens = encoder.encode(kept) if "retain" in asked.sets else []
    longest = max(len(t.ids) for t in [*forget_tokens, *retain_tokens])
    check_length(model, longest, "the longest record")
    settings = training or Training()
    references = {
        name: records_nll(
            model,
            token_batches(forget_tokens, _EVAL_TOKENS),
            len(forget_tokens),
            settings.precision,
        )
        for name in asked.references
    }

    def probability(live: nn.Module) -> float:
        return forget_probability(live, forget_tokens, settings.precision)

    _warn_unknown(model, forget_tokens, references)
    pairs = _pairs(forget_tokens, retain_tokens, settings, seed, pairing, anchor)
    trainer = UnlearnTrainer(
        model,
        pairs,
        mask=mask,
        objective=function,
        asked=asked,
        references=references,
        training=settings,
        seed=seed,
        what="unlearning",
        check=probability if stop_at is not None else None,
        check_every=check_every,
        stop_at=stop_at,
        on_step=on_step,
    )
    trainer.run()
    name = objective if isinstance(objective, str) else getattr(objective, "__name__", "custom")
    result = _result(trainer, stop_at, {"name": name, **asked.settings})
    last = result.history[-1].get("forget_probability")
    if stop_at is not None and last is not None and last < 0.5 * stop_at:
        logger.warning(
            "over-unlearned: the forget probability is %.3g, under half of the reference's %.3g; "
            "lower the learning rate or check_every",
            last,
            stop_at,
        )
    return result


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    *,
    mask: Mask | None = None,
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
        allow_other_model: accept a mask made for a related checkpoint.
        seed: of the order of the records.
        on_step: called with the figures of every step.
        training: epochs, learning rate, batch size and so on.
    """
    tokens = as_encoder(tokenizer).encode(read_records(records, name="records", seed=seed))
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    check_length(model, max(len(t.ids) for t in tokens), "the longest record")
    training = training or Training()
    trainer = UnlearnTrainer(
        model,
        _pairs([], tokens, training, seed, "shuffle", "retain"),
        mask=mask,
        objective=retain_finetune,
        asked=needs(retain_finetune),
        references={},
        training=training,
        seed=seed,
        what="teaching",
        on_step=on_step,
    )
    trainer.run()
    return _result(trainer, None, {"name": "retain_finetune"})


def forget_probability(
    model: nn.Module, tokens: Sequence[Tokens], precision: str = "float32"
) -> float:
    """Mean over records of exp(-mean NLL) of the answer; training looks in its own precision."""
    batches = token_batches(tokens, _EVAL_TOKENS)
    nll = records_nll(model, batches, len(tokens), precision).nll_mean
    return float(torch.exp(-nll.double()).mean())


def _pairs(
    forget: Sequence[Tokens],
    retain: Sequence[Tokens],
    training: Training,
    seed: int,
    pairing: str,
    anchor: str,
) -> Pairs:
    size = len(retain) if not forget or (anchor == "retain" and retain) else len(forget)
    steps = training.max_steps
    wanted = None if steps is None else steps * training.batch_size * training.accumulation
    epochs = training.epochs if wanted is None else -(-wanted // size)
    planned = plan(forget, retain, epochs=epochs, seed=seed, pairing=pairing, anchor=anchor)
    return Pairs(planned[:wanted], forget, retain)


def _warn_unknown(model: nn.Module, tokens: Sequence[Tokens], known: Mapping[str, Scored]) -> None:
    """Say aloud that the model never knew the forget set: its answers are no better than chance."""
    if not known:
        return
    owner: Any = model
    vocabulary = owner.get_output_embeddings().weight.shape[0]
    chance = float(torch.log(torch.tensor(float(vocabulary))))
    mean = float(next(iter(known.values())).nll_mean.mean())
    if mean > chance:
        logger.warning(
            "the model never knew the forget set (%d records): its mean NLL of %.1f nats is above "
            "a uniform guess (%.1f); check the template",
            len(tokens),
            mean,
            chance,
        )


def _result(
    trainer: UnlearnTrainer, stop_at: float | None, objective: dict[str, Any]
) -> TrainResult:
    assert trainer.selected is not None
    changed = trainer.selected.changed()
    if changed == 0:
        assert isinstance(trainer.model, PreTrainedModel)
        dtype = str(trainer.model.dtype).removeprefix("torch.")
        raise WagleError(
            f"the run changed none of its {trainer.selected.count} selected weights in {dtype}; "
            "raise the learning rate or load the model in float32"
        )
    last = trainer.history[-1].get("forget_probability", float("inf"))
    reached = stop_at is not None and last <= stop_at
    return TrainResult(
        trainer.history,
        trainer.selected.count,
        changed,
        "reference" if reached else "end",
        objective,
    )
