"""The plan of a training run: everything that can be determined before its first step.

Nothing is computed here, so a plan can be made for a model without weights. Making it raises an
error for anything that cannot be done; ``unlearn`` and ``finetune`` then carry out the same plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.batches import Pairs, plan
from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Record, Source
from wagle.data.tokens import Encoder, Tokens, as_encoder
from wagle.mask.mask import Mask
from wagle.model.structure import check_ids, check_length
from wagle.model.weights import fingerprint
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import WagleError
from wagle.unlearning.engines import check_engine
from wagle.unlearning.inputs import check_inputs, make_sets, sides
from wagle.unlearning.objectives.choice import Chosen, choose_objective
from wagle.unlearning.original import Original, choose_original, tokens_digest
from wagle.unlearning.training.optimizers import check_optimizer
from wagle.unlearning.training.steps import Gradient
from wagle.unlearning.training.trackers import check_trackers
from wagle.unlearning.watching.checks import Checks, Evaluate, make_checks, stop_rules
from wagle.unlearning.watching.looks import Looked, make_looked
from wagle.unlearning.watching.rules import Rule


@dataclass(frozen=True)
class Plan:
    """What a training run will do. It serves one run: the gradient and the checks have state.

    Attributes:
        settings: how it trains.
        encoder: turns records into tokens.
        chosen: the objective.
        gradient: how the gradient of a step is made.
        records: the records that must go, or those to teach.
        sets: the token sets that the objective asks for; none if there is nothing to train on.
        looked: the records that looks use.
        checks: what is looked at during training, and when.
        seed: of all draws.
        pairs: the planned records, in training order.
        epochs: how many passes over the anchor set these are.
        original: where full distributions of the original model come from.
        more: what checkpoints depend on besides model, mask, records, training and seed.
    """

    settings: Training
    encoder: Encoder
    chosen: Chosen
    gradient: Gradient
    records: Sequence[Record]
    sets: Mapping[str, list[Tokens]]
    looked: Looked
    checks: Checks
    seed: int
    pairs: Pairs = field(default_factory=lambda: Pairs([], {}, {}))
    epochs: float = 0.0
    original: Original = field(default_factory=Original)
    more: Mapping[str, Any] = field(default_factory=dict)

    def checkpoint_key(self, model: nn.Module, mask: Mask | None) -> dict[str, Any]:
        """What a checkpoint of this run depends on.

        Args:
            model: the model before training.
            mask: which of its weights may move; None: all.
        """
        digest = hashlib.sha256(json.dumps(self.pairs.pairs).encode())
        for side in (self.pairs.forget, self.pairs.retain):
            for name, tokens in side.items():
                digest.update(f"{name} {tokens_digest(tokens)}".encode())
        settings = self.settings.model_dump(mode="json", include=set(Training.model_fields))
        for free in ("checkpoint_minutes", "engine", "report_to"):
            del settings[free]  # does not change the result
        return {
            "model": fingerprint(model),
            "mask": None if mask is None else mask.digest(),
            "records": digest.hexdigest(),
            "training": settings,
            "seed": self.seed,
            **self.more,
        }


def plan_unlearning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None,
    settings: Unlearning,
    *,
    forgotten: Source | None = None,
    mask: Mask | None = None,
    reference: Mapping[str, float] | None = None,
    evaluated: Source | None = None,
    evaluation_precision: str = "float32",
    evaluate: Evaluate | None = None,
    wrong_answers: bool = True,
    overlap: str = "error",
    allow_other_model: bool = False,
    seed: int = 0,
    shard: bool = False,
) -> Plan:
    """Plan an unlearning run; the arguments are those of ``unlearn``.

    Args:
        model: the model to train, with or without weights.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        forget: the records that must go.
        retain: the records to keep, if any.
        settings: objective, rules, training and so on; ``lora`` and ``earlier`` are not read.
        forgotten: records that were forgotten earlier; those of an earlier run keep their places.
        mask: is checked against the model, and not kept.
        reference: figures of the reference.
        evaluated: the forget records that evaluations ask about; None: all.
        evaluation_precision: of an evaluation's matrix products, for landing.
        evaluate: gives further figures of the live model.
        wrong_answers: also score the wrong answers of retain records.
        overlap: ``error``, or ``allow`` records that are in both sets.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: of all draws.
        shard: whether the model will be in shards; a sharded one is recognised.

    Raises:
        WagleError: settings are unknown or incompatible, records are bad or too long, a set is
            missing or cannot provide what the objective asks for, a rule lacks its figure, or the
            mask is for another model.
    """
    way = _decide(settings, reference, seed)
    _check_adapter(model, settings)
    check_optimizer(settings)
    check_trackers(settings.report_to)
    encoder = as_encoder(tokenizer)
    gone = read_records(forget, name="forget", seed=seed)
    kept = [] if retain is None else read_records(retain, name="retain", seed=seed)
    trained = [*gone, *_read_forgotten(forgotten, seed)]
    check_disjoint(trained, kept, allow=overlap == "allow")
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    size = vocabulary(model)
    sets = make_sets(way.chosen, encoder, trained, kept, vocabulary=size, seed=seed)
    asked = gone if evaluated is None else read_records(evaluated, name="forget", seed=seed)
    looked = make_looked(
        encoder, asked, kept, whole=reference is not None, seed=seed, wrong_answers=wrong_answers
    )
    for tokens in [*sets.values(), looked.tokens]:
        check_length(model, max(len(t.ids) for t in tokens), "the longest record")
        check_ids(model, (t.ids for t in tokens))
    checks = _make_checks(looked, size, way, settings, reference, evaluate, evaluation_precision)
    found = Plan(settings, encoder, way.chosen, way.gradient, gone, sets, looked, checks, seed)
    if not sets:  # the objective ``none``: nothing to train on
        return found
    pairs, epochs = plan_pairs(sets, settings, seed, settings.pairing, settings.anchor)
    original = choose_original(model, settings.full_reference, settings.full_reference_k)
    check_engine(model, settings, way.chosen, original, shard=shard)
    check_inputs(model, way.chosen, sets)
    more = _depends_on(way, settings, reference)
    return replace(found, pairs=pairs, epochs=epochs, original=original, more=more)


class _Way(NamedTuple):
    chosen: Chosen
    gradient: Gradient
    rules: list[Rule]


def _decide(settings: Unlearning, reference: Mapping[str, float] | None, seed: int) -> _Way:
    """The objective, the gradient and the rules, if they are compatible."""
    chosen = choose_objective(settings.objective, settings.objective_settings, settings.retain_term)
    gradient = Gradient(
        settings.wrapper,
        settings.wrapper_settings,
        settings.dynamic_mask,
        settings.dynamic_settings,
        seed,
    )
    kind = {"bounded": chosen.entry.bounded, "turned": gradient.turns}
    rules = stop_rules(settings.stop_when, reference=reference, **kind)
    gradient.check(chosen, rules, settings.best)
    return _Way(chosen, gradient, rules)


def _make_checks(
    looked: Looked,
    size: int,
    way: _Way,
    settings: Unlearning,
    reference: Mapping[str, float] | None,
    evaluate: Evaluate | None,
    precise: str,
) -> Checks:
    land = reference is not None if settings.land == "auto" else settings.land
    return make_checks(
        looked,
        vocabulary=size,
        rules=way.rules,
        best=settings.best,
        reference=reference,
        precision=settings.precision,
        check_every=settings.check_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        land=land and not way.gradient.turns,
        precise=precise,
    )


def _depends_on(
    way: _Way, settings: Unlearning, reference: Mapping[str, float] | None
) -> dict[str, Any]:
    """What a checkpoint of unlearning depends on and one of teaching does not."""
    gradient = way.gradient
    looks = [settings.best, dict(reference or {}), settings.check_every, settings.evaluate_every]
    return {
        "objective": way.chosen.describe(),
        "gradient": [gradient.wrapper, gradient.settings, gradient.dynamic_mask, gradient.dynamic],
        "rules": [*map(str, way.rules), *looks, settings.land],
        "full_reference": [settings.full_reference, settings.full_reference_k],
    }


def _check_adapter(model: nn.Module, settings: Unlearning) -> None:
    if settings.wrapper == "task_vector" and hasattr(model, "disable_adapter"):
        raise WagleError(
            "task_vector does not work with LoRA: negating both factors leaves their product "
            "unchanged; train the weights themselves"
        )


def _read_forgotten(source: Source | None, seed: int) -> list[Record]:
    """Records that were forgotten earlier, under their own places if they have any."""
    if source is None:
        return []
    records = read_records(source, name="forgotten", seed=seed)
    if isinstance(source, list) and all(isinstance(one, Record) for one in source):
        named = zip(records, source, strict=True)
        return [replace(r, place=given.place or r.place) for r, given in named]
    return records


def plan_teaching(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    records: Source,
    settings: Training,
    *,
    mask: Mask | None = None,
    allow_other_model: bool = False,
    seed: int = 0,
) -> Plan:
    """Plan a run that teaches records; the arguments are those of ``finetune``.

    Args:
        model: the model to train, with or without weights.
        tokenizer: a fast tokenizer, or an ``Encoder``; None for pre-tokenised records.
        records: what to teach.
        settings: how it trains.
        mask: is checked against the model, and not kept.
        allow_other_model: accept a mask made for a related checkpoint.
        seed: of the order of the records.

    Raises:
        WagleError: bad settings or records, records that are too long, a mask for another model.
    """
    check_optimizer(settings)
    check_trackers(settings.report_to)
    chosen = choose_objective("retain_finetune")
    encoder = as_encoder(tokenizer)
    taught = read_records(records, name="records", seed=seed)
    sets = {"retain": encoder.encode(taught)}
    if mask is not None:
        mask.check_model(model, allow_other_model=allow_other_model)
    check_length(model, max(len(t.ids) for t in sets["retain"]), "the longest record")
    check_ids(model, (t.ids for t in sets["retain"]))
    original = choose_original(model, "auto", 1)
    check_engine(model, settings, chosen, original)
    pairs, epochs = plan_pairs(sets, settings, seed, "shuffle", "retain")
    return Plan(
        settings,
        encoder,
        chosen,
        Gradient(),
        taught,
        sets,
        Looked(),
        _no_checks(model, settings),
        seed,
        pairs,
        epochs,
        original,
    )


def _no_checks(model: nn.Module, settings: Training) -> Checks:
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


def vocabulary(model: nn.Module) -> int:
    """How many tokens the model has logits for."""
    owner: Any = model
    return int(owner.get_output_embeddings().weight.shape[0])


def plan_pairs(
    sets: Mapping[str, list[Tokens]], training: Training, seed: int, pairing: str, anchor: str
) -> tuple[Pairs, float]:
    """The planned records, and how many epochs of the anchor set they make.

    Args:
        sets: the token sets of both sides, by name.
        training: how many steps or epochs, of how many records.
        seed: of the order.
        pairing: how a record from the other side is drawn for each record of the anchor set.
        anchor: the set that an epoch passes over once.
    """
    forget, retain = sides(sets)
    first, second = (next(iter(side.values()), []) for side in (forget, retain))
    size = len(second) if not first or (anchor == "retain" and second) else len(first)
    steps = training.max_steps
    wanted = None if steps is None else steps * training.batch_size * training.accumulation
    epochs = training.epochs if wanted is None else -(-wanted // size)
    planned = plan(first, second, epochs=epochs, seed=seed, pairing=pairing, anchor=anchor)
    planned = planned[:wanted]
    return Pairs(planned, forget, retain), len(planned) / size
