"""The section ``unlearning``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wagle.recipe.sections.base import Section
from wagle.recipe.sections.training import Training
from wagle.recipe.values import AtLeastOne, Number, Setting, Text, refused


class Lora(Section):
    """Train a LoRA adapter beside the weights, which it is merged into at the end."""

    rank: AtLeastOne = 8
    """Rows of A and columns of B, which are trained in place of a layer's weights."""

    alpha: AtLeastOne = 16
    """A layer's output changes by alpha / rank times B A."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what enters A; needs unlearning.dropout."""

    targets: Literal["all-linear"] | list[Text] = "all-linear"
    """Layers with an adapter, by the last part of their names, such as [q_proj, v_proj], or
    all-linear: every linear layer but the head."""

    masked: bool = False
    """Select among the weights of the adapter as attribution says; otherwise all of them train, and
    there are no gradients and no mask."""

    keep: Literal["merge", "adapter"] = "merge"
    """What is left: merge, the unlearned model only, or adapter, also a folder adapter/ that peft
    loads beside the base."""

    quantize: Literal["none", "nf4"] = "none"
    """Of the base while the adapter trains: nf4 holds its linear layers in four bits (QLoRA, extra
    qlora). The adapter is merged into the base as it was."""


class Unlearning(Section, Training):
    """Make the model forget, by moving the selected weights only."""

    objective: Text = "npo"
    """The unlearning loss, by name: {objectives}. docs/objectives.md has their settings."""

    objective_settings: dict[str, Setting] = {}
    """Settings of the objective over its defaults, such as {beta: 0.1, retain_weight: 2}."""

    retain_term: Literal["auto", "nll", "kl", "none"] = "auto"
    """What keeps the retain set: nll (training on it), kl (staying close to the original model on it),
    none, or auto, which is the objective's own."""

    wrapper: Literal["none", "gru", "sam", "smooth", "task_vector"] = "none"
    """What is done around the objective: gru (the forget gradient loses what would raise the retain
    loss), sam or smooth (it is taken where the weights are worst, or noisy), task_vector (the change of
    the weights is scaled at the end, by -1 unless set: for forget_finetune)."""

    wrapper_settings: dict[str, Number] = {}
    """Settings of the wrapper over its defaults, such as {rho: 0.01}."""

    dynamic_mask: Literal["none", "sign_agreement", "row_norm"] = "none"
    """Which selected weights move in a step: all, those where forget and retain gradient have one
    sign, or those of the rows that forgetting pulls hardest. With it, all weights are selected and
    nothing is attributed, unless attribution asks for a mask, a ratio, a score or some of the weights."""

    dynamic_settings: dict[str, Number] = {}
    """Settings of the dynamic mask over its defaults, such as {quantile: 0.99}."""

    lora: Lora | None = None
    """Train a LoRA adapter in place of the weights, with these settings; null trains the weights."""

    full_reference: Literal["auto", "copy", "adapter", "topk"] = "auto"
    """How an objective gets whole distributions of the original model: a frozen copy, the model with
    its LoRA adapter off, the largest full_reference_k of each computed once, or auto, which is the
    adapter where there is one, else a copy."""

    full_reference_k: AtLeastOne = 100
    """Tokens of each distribution that topk keeps."""

    pairing: Literal["shuffle", "random", "cycle", "fixed"] = "shuffle"
    """How a retain record is drawn for each forget record (or the other way, see anchor)."""

    anchor: Literal["forget", "retain"] = "forget"
    """The set that an epoch passes over once."""

    stop_when: Literal["auto"] | list[Text] = "auto"
    """Rules that end training, such as 'retain.probability < 0.9 * before': a figure, a comparison, and a
    number or one times reference, before or uniform (a uniform guess). Figures are {figures}, and where
    retain records have wrong answers {figures_of_options}. auto is 'forget.probability <= reference',
    where there is a reference, and for objectives without a lower bound 'forget.nll >= uniform'."""

    best: Text | None = None
    """Which checkpoint is kept, such as 'max retain.utility_proxy where forget.probability <= 0.1'; auto
    is 'min forget.extraction_strength where retain.probability >= 0.95 * before'; null is the last. Of
    equals the earlier is kept."""

    check_every: AtLeastOne = 2
    """Steps between two looks at these figures; within twice the reference's forget probability,
    every step is looked at."""

    evaluate_every: AtLeastOne | None = None
    """Steps between two looks at all figures, for the log and the trackers; null never looks. Looks are
    at no more than 64 fixed records of each set; at all forget records beside a reference."""

    earlier: Literal["evaluate", "objective", "ignore"] = "evaluate"
    """What is done with what earlier runs forgot (see after): evaluate (asked for before and after),
    objective (also trained on, as a part of the forget set, so that it stays forgotten) or ignore
    (not even read)."""

    @model_validator(mode="after")
    def _lora_fits(self) -> Unlearning:
        if self.lora is None:
            return self
        if self.wrapper == "task_vector":
            said = "is task_vector, which turns weights around; that of an adapter is no change of "
            raise refused(f"{said}the model turned around; remove unlearning.lora", "wrapper")
        if self.lora.dropout and not self.dropout:
            said = "is given, but unlearning.dropout is off; set that to true, or this to 0"
            raise refused(said, "lora.dropout")
        return self
