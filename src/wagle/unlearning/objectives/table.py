"""The objectives by name, and what each asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from wagle.unlearning.objectives.activations import check_rmu, rmu, rmu_retain, rmu_trains
from wagle.unlearning.objectives.ascent import ce_u, grad_ascent, satimp, wga
from wagle.unlearning.objectives.distributions import (
    dual_rests,
    jensun,
    jensun_retain,
    kl_ascent,
    max_entropy,
    next_dual,
    pdu,
    undial,
)
from wagle.unlearning.objectives.preference import dpo, dpo_alt, npo, simnpo, tnpo
from wagle.unlearning.objectives.relabel import (
    forget_finetune,
    idk_ap_retain,
    llmu,
    random_label,
    random_label_uniform,
    refusal,
)
from wagle.unlearning.objectives.retaining import l1_sparse, none, retain_finetune
from wagle.unlearning.objectives.settings import Check, positive
from wagle.unlearning.objectives.shapes import Terms

Function: TypeAlias = Callable[..., "Tensor | Terms"]
FORGET_SIDE = ("forget", "refusal", "alternative", "mismatch", "uniform")
RETAIN_SIDE = ("retain", "retain_refusal")
WEIGHTS = ("forget_weight", "retain_weight")
KINDS = ("", "_ref", "_tokens", "_logits", "_logits_ref", "_hidden", "_hidden_ref")
INPUTS = {f"{s}{kind}" for s in (*FORGET_SIDE, *RETAIN_SIDE) for kind in KINDS} | {
    "control",
    "dual",
}


@dataclass(frozen=True)
class Dual:
    """How the number ``dual`` of a primal-dual objective starts and moves; both pure functions.

    Attributes:
        start: from the settings to its first value.
        update: from (value, retain NLL of the step in nats, epoch, settings) to its next value,
            once per optimiser step.
        rests: from the epochs of a run and the settings to why it would never move there, or None.
    """

    start: Callable[[Mapping[str, Any]], float]
    update: Callable[[float, float, float, Mapping[str, Any]], float]
    rests: Callable[[float, Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Objective:
    """An entry of the table: a function and what goes with it.

    Attributes:
        function: gives the forget term, or ``Terms``, which then holds the retain term as well.
        retain: the retain term unless another is asked for: a name in RETAIN_TERMS, ``none``, or
            ``own``.
        own: the retain term ``own``; None where it is a part of ``function``, so that no other can
            take its place.
        forget_weight: its default.
        retain_weight: its default; of another retain term in the place of ``own``, 1.
        bounded: False where the loss falls without end, so that training needs a stop rule.
        dual: how its ``dual`` moves, if it asks for one.
        proximal: the setting that is the threshold of a soft-thresholding step, if any.
        trains: from the settings to patterns of the only parameters that it trains where there is
            no mask; None trains all.
        check: from the settings to what is wrong with them beyond their types, or None.
    """

    function: Function
    retain: str = "nll"
    own: Function | None = None
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    bounded: bool = True
    dual: Dual | None = None
    proximal: str | None = None
    trains: Callable[[Mapping[str, Any]], list[str]] | None = None
    check: Check | None = None


_DUAL = Dual(lambda settings: float(settings["dual_start"]), next_dual, dual_rests)
_DIVIDES = positive("beta")
OBJECTIVES: dict[str, Objective] = {
    "ce_u": Objective(ce_u, retain="none"),
    "dpo": Objective(dpo, check=_DIVIDES),
    "dpo_alt": Objective(dpo_alt, check=_DIVIDES),
    "forget_finetune": Objective(forget_finetune, retain="none"),
    "ga_kl": Objective(grad_ascent, retain="kl", bounded=False),
    "grad_ascent": Objective(grad_ascent, retain="none", bounded=False),
    "grad_diff": Objective(grad_ascent, bounded=False),
    "idk_ap": Objective(refusal, retain="own", own=idk_ap_retain, check=_DIVIDES),
    "jensun": Objective(jensun, retain="own", own=jensun_retain),
    "kl": Objective(kl_ascent, retain="kl", bounded=False),
    "l1_sparse": Objective(l1_sparse, retain="own", proximal="l1_weight"),
    "llmu": Objective(llmu, retain="kl", bounded=False),
    "max_entropy": Objective(max_entropy, forget_weight=0.1),
    "none": Objective(none, retain="own"),
    "npo": Objective(npo, check=_DIVIDES),
    "pdu": Objective(pdu, retain="own", dual=_DUAL),
    "po": Objective(refusal),
    "random_label": Objective(random_label, retain="none"),
    "random_label_uniform": Objective(random_label_uniform, retain="none"),
    "refusal": Objective(refusal, retain="none"),
    "refusal_kl": Objective(refusal, retain="kl"),
    "retain_finetune": Objective(retain_finetune, retain="own"),
    "rmu": Objective(
        rmu,
        retain="own",
        own=rmu_retain,
        retain_weight=100.0,
        trains=rmu_trains,
        check=check_rmu,
    ),
    "satimp": Objective(satimp, retain_weight=0.1),
    "simnpo": Objective(simnpo, forget_weight=0.125, check=_DIVIDES),
    "tnpo": Objective(tnpo),
    "undial": Objective(undial, retain="none"),
    "wga": Objective(wga),
}
