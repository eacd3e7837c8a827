"""What the published WAGLE code and SOUL call their methods, and the objectives that these are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wagle.recipe.published.imported import Notes
from wagle.recipe.published.wagle_code.keys import SOUL, WAGLE
from wagle.system.errors import WagleError, choose


class Method(NamedTuple):
    """A published method.

    Attributes:
        objective: the objective that it is.
        weights: its weights, from its gamma; None if it has no gamma.
        refuses: whether it teaches refusals.
        there: what it does there, if that is not what it should do.
    """

    objective: str
    weights: Callable[[float], dict[str, float]] | None = None
    refuses: bool = False
    there: str = ""


def _retain(gamma: float) -> dict[str, float]:
    return {"retain_weight": gamma}


_BOTH = {
    "origin": Method("none"),
    "FT": Method("retain_finetune"),
    "l1_sparse": Method("l1_sparse", there="it stops: its factory knows only l1sparse"),
    "GA": Method("grad_ascent"),
    "GA+FT": Method("grad_diff", _retain),
    "CL": Method("refusal", refuses=True),
    "CL+FT": Method("po", _retain, refuses=True),
    "CL+KL": Method(
        "refusal_kl",
        _retain,
        refuses=True,
        there="its KL is a cross-entropy, which sharpens the model",
    ),
    "RL": Method("random_label", there="labels are pasted at the retain answer's own offsets"),
    "KL": Method(
        "kl",
        lambda gamma: {"forget_weight": gamma, "retain_weight": 1.0},
        there="its KL is a cross-entropy, which sharpens the model",
    ),
}
_NPO = Method("npo", _retain)
METHODS: dict[str, dict[str, Method]] = {
    WAGLE: {
        **_BOTH,
        "GA+KL": Method(
            "ga_kl",
            lambda gamma: {"forget_weight": gamma, "retain_weight": 1 - gamma},
            there="it stops: it is built without the model that it compares with",
        ),
        "NPO+FT": _NPO,
    },
    SOUL: {**_BOTH, "GA+KL": Method("ga_kl", _retain), "NPO": _NPO},
}
_NOT_HERE = {
    "GA_FT_epoch": "raises the weight of the retain loss from epoch to epoch",
    "GA_KL_epoch": "raises the weight of the retain loss from epoch to epoch",
    "CL_FT_epoch": "raises the weight of the retain loss from epoch to epoch",
    "sys": "only puts a system prompt before every question",
    "CUT": "is unfinished; its aim is the objective rmu with direction contrast",
}


def objective_of(
    values: Mapping[str, Any],
    project: str,
    corrected: bool,
    own: set[str],
    notes: Notes,
) -> dict[str, Any]:
    """The objective, its settings and its weights, as the section ``unlearning`` has them.

    Args:
        values: of all keys.
        project: whose.
        corrected: leave out what imitates a defect.
        own: the recipe's settings that the user gives.
        notes: gets a line for what is imitated, and for what is not.

    Raises:
        WagleError: a method that nothing here is, or a weight that cannot be converted.
    """
    name = values["unlearn.unlearn_method"]
    if name in _NOT_HERE:
        raise WagleError(
            f"unlearn.unlearn_method {name} has no counterpart: in {project} it {_NOT_HERE[name]}"
        )
    method = choose(METHODS[project], name, f"unlearn.unlearn_method of {project}")
    settings: dict[str, Any] = {}
    if method.weights is not None:
        settings = dict(method.weights(values[f"unlearn.{name}.gamma"]))
    if method.objective == "npo":
        settings["beta"] = 0.1  # fixed there
        if not corrected:
            settings["beta_token_mean"] = True
            notes.imitated.append(
                "unlearning.objective_settings.beta_token_mean: true, since its NPO takes the mean "
                "over tokens where the sum belongs, so its pull hardly fades"
            )
    if method.objective == "l1_sparse":
        settings.update(_penalty(values["unlearn.l1_sparse.alpha"], own))
    if not corrected:
        if method.there:
            notes.differs.append(f"unlearn_method {name}: {method.there}")
        if method.refuses:
            notes.differs.append("refusal_without_eos: it teaches refusals without their end")
    return {"objective": method.objective, "objective_settings": settings}


def _penalty(alpha: float, own: set[str]) -> dict[str, float]:
    if alpha and "unlearning.objective_settings.l1_weight" not in own:
        raise WagleError(
            f"unlearn.l1_sparse.alpha {alpha:g} cannot be converted: there the penalty is part of "
            "the loss, here it is a pull per step; give unlearning.objective_settings.l1_weight=W "
            "(docs/objectives.md says what W does)"
        )
    return {} if alpha else {"l1_weight": 0.0}
