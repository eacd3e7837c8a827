"""OpenUnlearning's trainers and their method_args, as objectives and their settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from wagle.recipe.published.imported import Notes
from wagle.recipe.values import shown
from wagle.system.errors import WagleError, choose

_KL = "its KL also counts prompts and padding"


class Trainer(NamedTuple):
    """A trainer.

    Attributes:
        objective: what it is here.
        settings: the objective's setting for each of its own method_args.
        weights: whether it has alpha and gamma, the weights of the retain and the forget term.
        there: what it does there that it should not.
    """

    objective: str
    settings: Mapping[str, str] = {}
    weights: bool = True
    there: tuple[str, ...] = ()


TRAINERS = {
    "CEU": Trainer(
        "ce_u",
        {"ignore_first_n_answer_tokens": "skip"},
        False,
        ("its loss of an answer of no more tokens than it skips is not a number",),
    ),
    "DPO": Trainer("dpo", {"beta": "beta"}, there=("refusals are drawn anew at every step",)),
    "GradAscent": Trainer("grad_ascent", weights=False),
    "GradDiff": Trainer("grad_diff"),
    "NPO": Trainer("npo", {"beta": "beta"}),
    "PDU": Trainer(
        "pdu",
        {
            "retain_loss_eps": "epsilon",
            "dual_step_size": "eta",
            "dual_warmup_epochs": "warmup",
            "alpha": "dual_start",
        },
        there=(
            "its dual moves with every micro-batch, here with every step",
            "its mask is not shifted, so the first token of an answer is missed",
        ),
    ),
    "RMU": Trainer(
        "rmu",
        {"steering_coeff": "steering"},
        there=("in batches of several records its mean mixes their lengths",),
    ),
    "SatImp": Trainer("satimp", {"beta1": "beta1", "beta2": "beta2"}),
    "SimNPO": Trainer("simnpo", {"beta": "beta", "delta": "margin"}),
    "UNDIAL": Trainer(
        "undial",
        {"beta": "beta"},
        there=("it also distils prompts and padding, with an arbitrary token suppressed",),
    ),
    "WGA": Trainer("wga", {"beta": "beta"}),
}
_SHARED = ("alpha", "gamma", "retain_loss_type")
_ALSO = {
    "PDU": ("primal_dual", "dual_update_upon", "loss_names"),
    "RMU": ("module_regex", "trainable_params_regex"),
}


def objective_of(
    name: str, given: Mapping[str, Any], alternatives: bool, corrected: bool, notes: Notes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The objective of a trainer for the section ``unlearning``, and the section ``attribution``.

    Args:
        name: of the trainer's class.
        given: its method_args.
        alternatives: whether records have other answers to prefer, as AltPO's.
        corrected: whether defects are left out.
        notes: gets what is not imitated.

    Raises:
        WagleError: a method_arg that the trainer does not take, or a value without a counterpart.
    """
    trainer = choose(TRAINERS, name, "trainer of OpenUnlearning")
    _check_taken(name, trainer, given)
    settings: dict[str, Any] = {}
    for theirs, ours in trainer.settings.items():
        if theirs in given:
            if given[theirs] == "???":
                raise WagleError(f"trainer.method_args.{theirs} must be given for {name}")
            settings[ours] = _number(theirs, given[theirs])
    found: dict[str, Any] = {"objective": trainer.objective}
    if name == "DPO" and alternatives:
        found["objective"] = "dpo_alt"
    if trainer.weights:
        found |= _weights(name, given, settings, corrected, notes)
    attribution = _of_rmu(given, settings) if name == "RMU" else {}
    if not corrected:
        notes.differs += [f"trainer {name}: {line}" for line in trainer.there]
    _check_rest(name, given, notes)
    return {**found, "objective_settings": settings}, attribution


def _check_taken(name: str, trainer: Trainer, given: Mapping[str, Any]) -> None:
    known = (*trainer.settings, *(_SHARED if trainer.weights else ()), *_ALSO.get(name, ()))
    wrong = [key for key in given if key not in known]
    if wrong:
        raise WagleError(
            f"trainer {name} takes no method_args {', '.join(wrong)}, so OpenUnlearning stops there; "
            f"remove them: {' '.join(f'~trainer.method_args.{key}' for key in wrong)}"
        )


def _weights(
    name: str, given: Mapping[str, Any], settings: dict[str, Any], corrected: bool, notes: Notes
) -> dict[str, Any]:
    """Put alpha and gamma into the settings; returns the retain term."""
    alpha, gamma = (_number(key, given.get(key, 1.0)) for key in ("alpha", "gamma"))
    kind = given.get("retain_loss_type", "NLL")
    terms = {"NLL": "auto", "KL": "kl"} | (
        {"EMBED_DIFF": "auto", "NLL": "nll"} if name == "RMU" else {}
    )
    if kind not in terms:
        raise WagleError(
            f"trainer.method_args.retain_loss_type is {kind}, at which OpenUnlearning's {name} "
            f"stops; it must be one of {', '.join(terms)}"
        )
    if kind == "KL" and not corrected:
        notes.differs.append(f"retain_loss_type KL: {_KL}")
    settings["forget_weight"] = gamma
    if name == "PDU":
        return {}
    if name == "SatImp" and (gamma, alpha) == (0.1, 1.0):
        notes.remarks.append(
            "SatImp's file has gamma 0.1 and alpha 1, its README gamma 1 and alpha 0.1: as its "
            "authors describe it, trainer.method_args.gamma=1 trainer.method_args.alpha=0.1"
        )
    if name == "UNDIAL":
        if not alpha:
            return {}
        terms["NLL"] = "nll"
    settings["retain_weight"] = alpha
    return {"retain_term": terms[kind]} if terms[kind] != "auto" else {}


def _of_rmu(given: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Which block RMU steers, and which weights train, from their regular expressions."""
    block = str(given.get("module_regex", r"model\.layers\.7"))
    layer = re.fullmatch(r"(?:model\\?\.)?layers\\?\.(\d+)", block)
    if layer is None:
        raise WagleError(
            f"trainer.method_args.module_regex is {block}; only one block can be steered, such as "
            r"model\.layers\.7"
        )
    settings["layer"] = int(layer[1])
    asked = given.get("trainable_params_regex", [".*"])
    patterns = asked if isinstance(asked, list) else [asked]
    return {"score": {"by_name": [glob_of(str(one)) for one in patterns]}}


def glob_of(pattern: str) -> str:
    """A glob for a regular expression of parameter names, as far as that goes.

    Raises:
        WagleError: the expression says more than a glob can.
    """
    text = re.sub(r"^\^?model\\?\.layers", "*", pattern.removesuffix("$"))
    text = re.sub(r"\((\w(?:\|\w)+)\)", lambda m: f"[{m[1].replace('|', '')}]", text)
    text = text.replace(r"\.", "\0").replace(".*", "*").replace(r"\d+", "*").replace("\0", ".")
    if re.search(r"[\\()|+?{}^$]", text):
        raise WagleError(
            f"trainer.method_args.trainable_params_regex {shown(pattern)} has no simple form here; "
            "give attribution.score={by_name: [PATTERN]} and ~trainer.method_args.trainable_params_regex"
        )
    return text


def _check_rest(name: str, given: Mapping[str, Any], notes: Notes) -> None:
    if name != "PDU":
        return
    if given.get("dual_update_upon", "step") != "step":
        notes.left_out.append(
            "trainer.method_args.dual_update_upon epoch: OpenUnlearning moves the dual once per "
            "epoch; here it moves with every step"
        )
    if given.get("primal_dual", True) is not True:
        raise WagleError(
            "trainer.method_args.primal_dual false has no counterpart: there the dual stays put; "
            "give trainer.method_args.dual_step_size=0"
        )


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WagleError(f"trainer.method_args.{key} is {shown(value)}; it must be a number")
    return float(value)
