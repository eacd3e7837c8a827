"""The section ``unlearning``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wagle.recipe.sections.base import Section
from wagle.recipe.sections.training import Training
from wagle.recipe.values import AtLeastOne, Number, Setting, Text, refused


class Lora(Section):
    """Train a LoRA adapter instead of the weights, and merge it into them at the end."""

    rank: AtLeastOne = 8
    """Rows of A and columns of B, which are trained instead of a layer's weights."""

    alpha: AtLeastOne = 16
    """Scale of the adapter: alpha / rank times B A is added to a layer's weights."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of A; needs unlearning.dropout."""

    targets: Literal["all-linear"] | list[Text] = "all-linear"
    """Layers that get an adapter, by the last part of their names, such as [q_proj, v_proj]; or
    all-linear: every linear layer except the head."""

    masked: bool = False
    """Train only the adapter weights that attribution selects; otherwise the whole adapter trains,
    and no gradients are taken and no mask is made."""

    keep: Literal["merge", "adapter"] = "merge"
    """What to keep: merge (the unlearned model only), or adapter (also a folder adapter/ that peft
    can load on top of the base)."""

    quantize: Literal["none", "nf4"] = "none"
    """How to quantise the base while the adapter trains: nf4 holds its linear layers in four bits
    (QLoRA, extra qlora). The adapter is then merged into the unquantised base."""


class Unlearning(Section, Training):
    """Make the model forget by moving only the selected weights."""

    objective: Text = "npo"
    """The unlearning loss, by name: {objectives}. docs/objectives.md describes their settings."""

    objective_settings: dict[str, Setting] = {}
    """Settings of the objective that override its defaults, such as {beta: 0.1, retain_weight:
    2}."""

    retain_term: Text = "auto"
    """What preserves the retain set: nll (training on it), kl (staying close to the original model
    on it), none, or auto (the objective's default)."""

    wrapper: Literal["none", "gru", "sam", "smooth", "task_vector"] = "none"
    """A method applied around the objective: gru (removes from the forget gradient what would raise
    the retain loss), sam or smooth (takes the forget gradient at adversarially perturbed or at
    noisy weights), task_vector (scales the change of the weights at the end, by -1 unless set: for
    forget_finetune)."""

    wrapper_settings: dict[str, Number] = {}
    """Settings of the wrapper that override its defaults, such as {rho: 0.01}."""

    dynamic_mask: Literal["none", "sign_agreement", "row_norm"] = "none"
    """Which selected weights move in each step: none (all of them), sign_agreement (those whose
    forget and retain gradients have the same sign) or row_norm (those in the rows with the largest
    forget gradient). With either, all weights are selected and nothing is attributed, unless
    attribution sets a mask, a ratio, a score or a subset of the weights."""

    dynamic_settings: dict[str, Number] = {}
    """Settings of the dynamic mask that override its defaults, such as {quantile: 0.99}."""

    lora: Lora | None = None
    """Train a LoRA adapter instead of the weights, with these settings; null trains the weights."""

    full_reference: Literal["auto", "copy", "adapter", "topk"] = "auto"
    """Where an objective gets the original model's full distributions: copy (a frozen copy),
    adapter (the model with its LoRA adapter off), topk (the full_reference_k most likely tokens of
    each, computed once), or auto (adapter if there is one, else copy)."""

    full_reference_k: AtLeastOne = 100
    """How many tokens of each distribution topk keeps."""

    pairing: Literal["shuffle", "random", "cycle", "fixed"] = "shuffle"
    """How a retain record is drawn for each forget record (or vice versa, see anchor)."""

    anchor: Literal["forget", "retain"] = "forget"
    """The set that an epoch passes over once."""

    stop_when: Literal["auto"] | list[Text] = "auto"
    """Rules that end training, such as 'retain.probability < 0.9 * before': a figure, a comparison
    and a value, which is a number, or reference, before or uniform (a uniform guess), with or
    without a factor. The figures are {figures}; if retain records have wrong answers, also
    {figures_of_options}. auto is 'forget.probability <= reference' if there is a reference, and
    'forget.nll >= uniform' for objectives without a lower bound."""

    best: Text | None = None
    """Which checkpoint to keep, such as 'max retain.utility_proxy where forget.probability <= 0.1';
    auto is 'min forget.extraction_strength where retain.probability >= 0.95 * before'; null keeps
    the last. Ties go to the earlier one."""

    land: Literal["auto"] | bool = "auto"
    """Whether a run that a rule ends goes back between the last two looks, to where the rule's
    figure lies in the middle third of the reference's band (for any other limit: at it, or at most
    5 % beyond); with best, to the edge of its conditions. auto does so if there is a reference."""

    check_every: AtLeastOne = 2
    """Steps between looks at these figures; once the forget probability is within twice the
    reference's, there is one after every step."""

    evaluate_every: AtLeastOne | None = None
    """Steps between looks at all figures, for the log and the trackers; null disables them. A look
    uses at most 64 fixed records of each set, but all forget records if there is a reference."""

    when_unknown: Literal["stop", "go"] = "stop"
    """What to do if the model never knew the forget set, by the probes before unlearning or next to
    invented twins (docs/check.md): stop (no mask, model or patch is made, and the verdict is
    inconclusive) or go (unlearn all the same)."""

    earlier: Literal["evaluate", "objective", "ignore"] = "evaluate"
    """What to do with the records that earlier runs forgot (see after): evaluate (ask about them
    before and after), objective (also train on them as part of the forget set, so that they stay
    forgotten) or ignore (do not read them)."""

    @model_validator(mode="after")
    def _lora_fits(self) -> Unlearning:
        if self.lora is None:
            return self
        if self.wrapper == "task_vector":
            said = "is task_vector, which negates weights; negating an adapter's weights does not "
            raise refused(f"{said}negate the model's change; remove unlearning.lora", "wrapper")
        if self.engine == "stream":
            said = (
                "is stream, which trains the weights themselves; leave it out with unlearning.lora"
            )
            raise refused(said, "engine")
        if self.lora.dropout and not self.dropout:
            said = "is given, but unlearning.dropout is off; set that to true, or this to 0"
            raise refused(said, "lora.dropout")
        return self
