"""Inputs of objectives: the sets of records, and what an objective asks for, batch by batch.

``make_sets`` builds the token sets that an objective asks for; ``Supply`` answers every parameter
name of an objective for a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.data.draws import uniform
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.model.scoring import Scored, answer_logits, score, sum_per_record
from wagle.model.streaming.opening import each, is_streamed
from wagle.model.structure import precision, without_dropout
from wagle.system.errors import WagleError
from wagle.system.memory import Spill
from wagle.unlearning.objectives.choice import Chosen
from wagle.unlearning.objectives.entry import FORGET_SIDE
from wagle.unlearning.objectives.shapes import Distribution, Hidden
from wagle.unlearning.original import (
    Columns,
    Original,
    frozen_copy,
    original_hidden,
    reference_scores,
    top_distributions,
)
from wagle.unlearning.reading.activations import check_layer, hidden
from wagle.unlearning.reading.controls import control_vectors, topic_names

logger = logging.getLogger(__name__)
_FORESEEN = 256 << 20  # bytes of the original's distributions before they go to a file

# ---------------------------------------------------------------------------------------------
# Sets of records


def make_sets(
    chosen: Chosen,
    encoder: Encoder,
    forget: Sequence[Record],
    retain: Sequence[Record],
    *,
    vocabulary: int,
    seed: int,
) -> dict[str, list[Tokens]]:
    """The token sets that an objective asks for, each aligned with its side's records.

    Args:
        chosen: the objective.
        encoder: turns records into tokens.
        forget: the records that must go.
        retain: the records to keep.
        vocabulary: how many tokens the model knows, for random labels.
        seed: of every draw, together with the record's id.

    Raises:
        WagleError: a set is missing, or cannot be made from these records.
    """

    def kept() -> Sequence[Record]:
        if not retain:
            raise WagleError(f"objective {chosen.name} needs a retain set; give one")
        return retain

    def mismatch() -> list[Tokens]:
        answers = [r.answer for r in kept() if r.answer]
        if not answers:
            raise WagleError(
                f"objective {chosen.name} draws answers from the retain set, which has none; use qa "
                "or chat records"
            )
        places = [int(uniform(seed, "mismatch", r.id) * len(answers)) for r in forget]
        return [encoder.replaced(r, answers[i]) for r, i in zip(forget, places, strict=True)]

    makers: dict[str, Callable[[], list[Tokens]]] = {
        "forget": lambda: encoder.encode(forget),
        "retain": lambda: encoder.encode(kept()),
        "refusal": lambda: [encoder.replaced(r, r.refusal) for r in forget],
        "retain_refusal": lambda: [encoder.replaced(r, r.refusal) for r in kept()],
        "alternative": lambda: [encoder.replaced(r, _alternative(r, seed)) for r in forget],
        "mismatch": mismatch,
        "uniform": lambda: _random_labels(encoder, encoder.encode(forget), vocabulary, seed),
    }
    return {name: makers[name]() for name in chosen.sets}


def _alternative(record: Record, seed: int) -> str:
    if not record.alternatives:
        raise WagleError(
            f"{record.place} has no alternative answer; add a field alternatives, or choose an "
            "objective that teaches refusals"
        )
    drawn = uniform(seed, "alternative", record.id)
    return record.alternatives[int(drawn * len(record.alternatives))]


def _random_labels(
    encoder: Encoder, tokens: Sequence[Tokens], vocabulary: int, seed: int
) -> list[Tokens]:
    """The same records with labels drawn from all tokens but the special ones."""
    special = set(encoder.tokenizer.all_special_ids) if encoder.tokenizer else set()
    allowed = [i for i in range(vocabulary) if i not in special]
    return [
        replace(
            t,
            labels=tuple(
                allowed[int(uniform(seed, "label", t.id, i) * len(allowed))]
                for i in range(sum(t.scored))
            ),
        )
        for t in tokens
    ]


# ---------------------------------------------------------------------------------------------
# Control vectors


# ---------------------------------------------------------------------------------------------
# What an objective is given


def check_inputs(model: nn.Module, chosen: Chosen, sets: Mapping[str, Sequence[Tokens]]) -> None:
    """Refuse settings of an objective that do not fit the model or the forget set.

    Args:
        model: its structure, with or without weights.
        chosen: the objective.
        sets: the token sets that it needs, by name.

    Raises:
        WagleError: a block does not exist, or there are too few or too many names of topics.
    """
    if any("_hidden" in name for name in chosen.inputs):
        check_layer(model, chosen.settings.get("layer"))
    if "control" in chosen.inputs and chosen.settings["direction"] == "contrast":
        topic_names(chosen.settings, _topics(sets))


def _topics(sets: Mapping[str, Sequence[Tokens]]) -> int:
    """How many topics, each with its own control vector, the forget set has."""
    return 1 + max(t.domain for t in sets["forget"])


class Supply:
    """Answers what an objective asks for, batch by batch.

    Args:
        model: still the original model.
        chosen: the objective.
        sets: the token sets that it needs, by name.
        planned: the (forget, retain) records of training, -1 where a side is absent: the original
            model is asked only about these.
        encoder: for control vectors.
        original: where full distributions of the original model come from.
        dtype: the precision of the matrix products.
        folder: where references are kept; None keeps them in memory only.
        seed: of control vectors.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chosen: Chosen,
        sets: Mapping[str, list[Tokens]],
        *,
        planned: Sequence[tuple[int, int]],
        encoder: Encoder,
        original: Original,
        dtype: str,
        folder: Path | None,
        seed: int,
    ) -> None:
        self.chosen, self.sets, self.original = chosen, dict(sets), original
        self.dual = chosen.entry.dual.start(chosen.settings) if chosen.entry.dual else 0.0
        asked = chosen.inputs
        check_inputs(model, chosen, sets)
        self.layer = int(chosen.settings.get("layer") or 0)
        self.scores: dict[str, dict[int, Columns]] = {}
        self.tops: dict[str, dict[int, Columns]] = {}
        self.states: dict[str, dict[int, Columns]] = {}
        self.controls = torch.zeros(0)
        self.frozen: nn.Module | None = None
        self.dtype = dtype
        self._foreseen = Spill(_FORESEEN)
        forget, retain = (sorted({pair[side] for pair in planned} - {-1}) for side in (0, 1))
        for name, tokens in sets.items():
            wanted = forget if name in FORGET_SIDE else retain
            if f"{name}_ref" in asked:
                self.scores[name] = reference_scores(model, name, tokens, wanted, dtype, folder)
            if f"{name}_logits_ref" in asked and original.mode == "topk":
                self.tops[name] = top_distributions(
                    model, name, tokens, wanted, dtype, original.k, folder
                )
            if f"{name}_hidden_ref" in asked:
                self.states[name] = original_hidden(
                    model, name, tokens, wanted, self.layer, dtype, folder
                )
        if "control" in asked:
            self.controls = control_vectors(model, encoder, chosen.settings, _topics(sets), seed)
        if any(name.endswith("_logits_ref") for name in asked) and original.mode == "copy":
            self.frozen = frozen_copy(model)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]], chosen: Chosen
    ) -> tuple[dict[str, Any], dict[str, Scored]]:
        """What ``chosen`` (the objective or a part of it) asks for, and what was scored for it."""
        given: dict[str, Any] = {"dual": self.dual}
        shown: dict[str, Scored] = {}
        for name in chosen.sets:
            one = batch[name]
            asked = [a for a in chosen.inputs if a == name or a.startswith(f"{name}_")]
            if {name, f"{name}_logits", f"{name}_tokens"} & set(asked):
                logits, target = answer_logits(model, one)
                given[f"{name}_logits"], given[f"{name}_tokens"] = logits, target
                given[name] = shown[name] = score(logits, target, one["scored"])
            if f"{name}_hidden" in asked:
                given[f"{name}_hidden"] = hidden(model, one, self.layer)
            given.update(self._references(model, name, one, chosen.inputs))
        if "control" in chosen.inputs:
            domains = [self.sets["forget"][i].domain for i in batch["forget"]["index"].tolist()]
            device = batch["forget"]["index"].device
            given["control"] = self.controls[domains].to(device)
        return given, shown

    def _references(
        self, model: nn.Module, name: str, one: Mapping[str, Tensor], asked: Sequence[str]
    ) -> dict[str, Any]:
        index = one["index"]
        given: dict[str, Any] = {}
        if f"{name}_ref" in asked:
            known, length = _of(self.scores[name], index), one["scored"].sum(-1)
            total = sum_per_record(known["token_nll"], length)
            given[f"{name}_ref"] = Scored(total, total / length, length, **known)
        if f"{name}_hidden_ref" in asked:
            states = _of(self.states[name], index)["states"]
            given[f"{name}_hidden_ref"] = Hidden(states, one["attention_mask"].sum(-1))
        if f"{name}_logits_ref" in asked:
            given[f"{name}_logits_ref"] = self._distribution(model, name, one)
        return given

    def foresee(self, micros: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> None:
        """Ask a streamed copy of the original about all batches of a step in one reading of it."""
        if self.frozen is None or not is_streamed(self.frozen):
            return
        frozen, asked = self.frozen, self.chosen.inputs
        names = [name for name in self.chosen.sets if f"{name}_logits_ref" in asked]
        batches = [(name, micro[name]) for micro in micros for name in names if name in micro]

        def ask(one: tuple[str, Mapping[str, Tensor]]) -> None:
            name, batch = one
            with precision(batch["index"].device, self.dtype):
                logits, _ = answer_logits(frozen, batch)
                self._foreseen[_key(name, batch)] = logits.float().log_softmax(-1)

        self._foreseen.clear()
        with torch.no_grad():
            each(frozen, ask, batches)

    def _distribution(self, model: nn.Module, name: str, one: Mapping[str, Tensor]) -> Distribution:
        if name in self.tops:
            top = _of(self.tops[name], one["index"])
            return Distribution(top["log_probs"], top["tokens"].long(), top["tail"])
        if _key(name, one) in self._foreseen:
            known = self._foreseen[_key(name, one)]
            return Distribution(known.to(one["index"].device))
        with torch.no_grad():
            if self.frozen is not None:
                logits, _ = answer_logits(self.frozen, one)
            else:
                owner: Any = model
                with owner.disable_adapter(), without_dropout(model):
                    logits, _ = answer_logits(model, one)
            return Distribution(logits.float().log_softmax(-1))

    def step(self, retain_nll: float, epoch: float) -> None:
        """After an optimiser step: move the dual variable of a primal-dual objective."""
        if self.chosen.entry.dual is not None:
            update = self.chosen.entry.dual.update
            self.dual = update(self.dual, retain_nll, epoch, self.chosen.settings)


def _key(name: str, batch: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """What identifies a batch of a set within a step."""
    return (name, *batch["index"].tolist(), *batch["input_ids"].shape)


def _of(known: Mapping[int, Columns], index: Tensor) -> Columns:
    """What is known about the records of a batch, concatenated, on its device, in float32."""
    records = [known[i] for i in index.tolist()]
    columns = {name: [_widened(record[name]) for record in records] for name in records[0]}
    return {name: torch.cat(column).to(index.device) for name, column in columns.items()}


def _widened(values: Tensor) -> Tensor:
    """Float16 as float32: autocast on a CPU cannot concatenate float16."""
    return values.float() if values.is_floating_point() else values


def warn_resting(chosen: Chosen, epochs: float) -> None:
    """Warn if the dual of a primal-dual objective would never move in a run of this many epochs."""
    dual = chosen.entry.dual
    why = None if dual is None else dual.rests(epochs, chosen.settings)
    if why is not None:
        logger.warning("objective %s: %s", chosen.name, why)


def sides(
    sets: Mapping[str, list[Tokens]],
) -> tuple[dict[str, list[Tokens]], dict[str, list[Tokens]]]:
    """The sets on the forget side and those on the retain side."""
    forget = {n: t for n, t in sets.items() if n in FORGET_SIDE}
    return forget, {n: t for n, t in sets.items() if n not in forget}
