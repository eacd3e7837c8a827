"""Inputs of objectives: the sets of records, and what an objective asks for, batch by batch.

``make_sets`` builds the token sets that an objective asks for; ``Supply`` answers every parameter
name of an objective for a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.data.batches import token_batches
from wagle.data.draws import uniform
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.errors import WagleError
from wagle.model import Scored, answer_logits, check_device, score, to_device, without_dropout
from wagle.unlearning.objectives import FORGET_SIDE, Chosen
from wagle.unlearning.objectives.activations import contrast_control, random_control
from wagle.unlearning.objectives.shapes import Distribution, Hidden
from wagle.unlearning.original import (
    EVAL_TOKENS,
    Original,
    check_layer,
    hidden,
    original_hidden,
    reference_scores,
    top_distributions,
)

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
        encoder: makes tokens of records.
        forget: the records that must go.
        retain: the records to keep.
        vocabulary: how many tokens the model knows, for random labels.
        seed: of every draw, with the record's id.

    Raises:
        WagleError: a set that is missing, or that these records cannot give.
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
            "objective that teaches a refusal"
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


def control_vectors(
    model: nn.Module, encoder: Encoder, settings: Mapping[str, Any], topics: int, seed: int
) -> Tensor:
    """One control vector per forget topic: (topics, d) float32.

    ``direction: random`` draws them; ``contrast`` takes the difference of what a ``novice`` and an
    ``expert`` prompt leave at their last token, for each of ``topics`` (its ``{topic}`` filled in).
    """
    owner: Any = model
    steering = float(settings["steering"])
    if settings["direction"] == "random":
        size = owner.config.get_text_config(decoder=True).hidden_size
        drawn = [random_control(seed, topic, size, steering=steering) for topic in range(topics)]
        return torch.stack(drawn)
    named = list(settings["topics"]) or [""] * (topics == 1)
    if len(named) != topics:
        raise WagleError(
            f"topics names {len(named)} topics, the forget set has {topics} sources; name one each"
        )
    made = []
    for name in named:
        ends = []
        for prompt in (settings["novice"], settings["expert"]):
            text = str(prompt).replace("{topic}", name)
            tokens = encoder.encode([Record("text", answer=text, id=text, place="control")])
            batch = to_device(token_batches(tokens[:1], EVAL_TOKENS)[0], check_device(model))
            with torch.no_grad(), without_dropout(model):
                got = hidden(model, batch, int(settings["layer"]))
            ends.append(got.states[_last_word(tokens[0])].cpu())
        made.append(contrast_control(ends[0], ends[1], steering=steering))
    return torch.stack(made)


def _last_word(tokens: Tokens) -> int:
    """The last token of a text that is not the end mark which the encoder added."""
    return len(tokens.ids) - (2 if tokens.closed else 1)


# ---------------------------------------------------------------------------------------------
# What an objective is given


class Supply:
    """Answers what an objective asks for, batch by batch.

    Args:
        model: still the original model.
        chosen: the objective.
        sets: the token sets that it needs, by name.
        encoder: for control vectors.
        original: how whole distributions of the original model are had.
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
        encoder: Encoder,
        original: Original,
        dtype: str,
        folder: Path | None,
        seed: int,
    ) -> None:
        self.chosen, self.sets, self.original = chosen, dict(sets), original
        self.dual = chosen.entry.dual.start(chosen.settings) if chosen.entry.dual else 0.0
        asked = chosen.inputs
        layer = chosen.settings.get("layer")
        if any("_hidden" in name for name in asked):
            check_layer(model, layer)
        self.layer = int(layer or 0)
        self.scores: dict[str, Scored] = {}
        self.tops: dict[str, dict[str, Tensor]] = {}
        self.states: dict[str, Tensor] = {}
        self.controls = torch.zeros(0)
        self.frozen: nn.Module | None = None
        for name in sets:
            if f"{name}_ref" in asked:
                self.scores[name] = reference_scores(model, name, sets[name], dtype, folder)
            if f"{name}_logits_ref" in asked and original.mode == "topk":
                self.tops[name] = top_distributions(
                    model, name, sets[name], dtype, original.k, folder
                )
            if f"{name}_hidden_ref" in asked:
                self.states[name] = original_hidden(
                    model, name, sets[name], self.layer, dtype, folder
                )["states"]
        if "control" in asked:
            topics = 1 + max(t.domain for t in sets["forget"])
            self.controls = control_vectors(model, encoder, chosen.settings, topics, seed)
        if any(name.endswith("_logits_ref") for name in asked) and original.mode == "copy":
            self.frozen = copy.deepcopy(model).requires_grad_(False).eval()
        self._starts = {name: _starts(tokens) for name, tokens in sets.items()}

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]], chosen: Chosen
    ) -> tuple[dict[str, Any], dict[str, Scored]]:
        """What ``chosen`` asks for, the objective or a part of it, and what was scored on the way."""
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
            whole, where = self.scores[name], self._tokens(name, index, "scored")
            columns = [column[index.cpu()].to(index.device) for column in whole[:3]]
            per_token = [column[where].to(index.device) for column in whole[3:]]
            given[f"{name}_ref"] = Scored(*columns, *per_token)
        if f"{name}_hidden_ref" in asked:
            where = self._tokens(name, index, "real")
            given[f"{name}_hidden_ref"] = Hidden(
                self.states[name][where].to(index.device), one["attention_mask"].sum(-1)
            )
        if f"{name}_logits_ref" in asked:
            given[f"{name}_logits_ref"] = self._distribution(model, name, one)
        return given

    def _distribution(self, model: nn.Module, name: str, one: Mapping[str, Tensor]) -> Distribution:
        if name in self.tops:
            where = self._tokens(name, one["index"], "scored")
            top = {k: v[where].to(one["index"].device) for k, v in self.tops[name].items()}
            return Distribution(top["log_probs"], top["tokens"].long(), top["tail"])
        with torch.no_grad():
            if self.frozen is not None:
                logits, _ = answer_logits(self.frozen, one)
            else:
                owner: Any = model
                with owner.disable_adapter(), without_dropout(model):
                    logits, _ = answer_logits(model, one)
            return Distribution(logits.float().log_softmax(-1))

    def _tokens(self, name: str, index: Tensor, kind: str) -> Tensor:
        """Where the tokens of these records are in what is kept record after record."""
        starts = self._starts[name][kind]
        return torch.cat([torch.arange(starts[i], starts[i + 1]) for i in index.tolist()])

    def step(self, retain_nll: float, epoch: float) -> None:
        """After an optimiser step: move the dual variable of a primal-dual objective."""
        if self.chosen.entry.dual is not None:
            update = self.chosen.entry.dual.update
            self.dual = update(self.dual, retain_nll, epoch, self.chosen.settings)


def _starts(tokens: Sequence[Tokens]) -> dict[str, list[int]]:
    scored, real = [0], [0]
    for t in tokens:
        scored.append(scored[-1] + sum(t.scored))
        real.append(real[-1] + len(t.ids))
    return {"scored": scored, "real": real}


def sides(
    sets: Mapping[str, list[Tokens]],
) -> tuple[dict[str, list[Tokens]], dict[str, list[Tokens]]]:
    """The sets of the forget side and those of the retain side."""
    forget = {n: t for n, t in sets.items() if n in FORGET_SIDE}
    return forget, {n: t for n, t in sets.items() if n not in forget}
