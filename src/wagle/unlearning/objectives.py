"""Unlearning objectives: pure functions from scored records to a loss per record.

An objective sees log-probabilities, never a model, a tokenizer or a device. What it needs it asks
for by parameter name: ``forget`` and ``retain`` (the records of a batch), ``forget_ref`` (the
forget records under the original model); keyword parameters with a default are its settings. The
trainer supplies the rest, takes the means and logs both terms.
To add one: a function here, its entry in OBJECTIVES, a test beside the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from wagle.errors import WagleError, choose, nearest
from wagle.model import Scored


class Terms(NamedTuple):
    """The loss per record, weighted: ``forget`` (B_f,) and ``retain`` (B_r,), float32, or None."""

    forget: Tensor | None
    retain: Tensor | None


Objective: TypeAlias = Callable[..., Terms]


def retain_finetune(retain: Scored) -> Terms:
    """Plain training on the records to keep: ``M_r`` per record. Teaching uses it too.

    Args:
        retain: B_r records; ``nll_mean`` is (B_r,) float32, in nats.
    """
    return Terms(None, retain.nll_mean)


def grad_ascent(forget: Scored, *, forget_weight: float = 1.0) -> Terms:
    """Gradient ascent: ``-M_f`` per forget record. Unbounded below: it needs a stop rule.

    Args:
        forget: B_f records under the trained model; ``nll_mean`` is (B_f,) float32.
        forget_weight: >= 0.

    Source: Jang et al. 2023, arXiv 2210.01504.
    """
    return Terms(-forget_weight * forget.nll_mean, None)


def grad_diff(
    forget: Scored, retain: Scored, *, forget_weight: float = 1.0, retain_weight: float = 1.0
) -> Terms:
    """Gradient difference: ascent on the forget set, descent on the retain set. Unbounded below.

    Args:
        forget: B_f records; ``nll_mean`` is (B_f,) float32, in nats.
        retain: B_r records to keep.
        forget_weight: >= 0.
        retain_weight: >= 0.

    Source: Liu et al. 2022, arXiv 2203.12817; Maini et al. 2024 (TOFU), arXiv 2401.06121.
    """
    return Terms(-forget_weight * forget.nll_mean, retain_weight * retain.nll_mean)


def npo(
    forget: Scored,
    retain: Scored,
    *,
    forget_ref: Scored,
    beta: float = 0.1,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
) -> Terms:
    """Negative preference optimisation plus a retain term.

    Per forget record ``-(2/beta) log sigmoid(beta (S - S_ref))``, per retain record
    ``retain_weight * M``, with S a record's summed, M its mean answer NLL in nats. The pull on a
    record fades once its answer is less likely than it was; so, unlike gradient ascent, the loss
    is bounded below.

    Args:
        forget: B_f records under the trained model; ``nll_sum`` is (B_f,) float32.
        retain: the same, of B_r records to keep.
        forget_ref: the forget records under the original model, no gradient.
        beta: 1/nats, > 0; towards 0 this becomes gradient ascent on the sum.
        forget_weight: >= 0.
        retain_weight: >= 0.

    Source: Zhang et al. 2024, arXiv 2404.05868, loss L_NPO.
    """
    gap = forget.nll_sum - forget_ref.nll_sum  # (B_f,)
    pull = -(2 / beta) * F.logsigmoid(beta * gap)
    return Terms(forget_weight * pull, retain_weight * retain.nll_mean)


def wga(
    forget: Scored,
    retain: Scored,
    *,
    beta: float = 1.0,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
) -> Terms:
    """Weighted gradient ascent plus a retain term.

    Per forget record minus the mean over its tokens of ``p^beta * nll``, the weight without
    gradient: tokens that are unlikely already are left alone, so the ascent spreads over the
    answer instead of running away on a few tokens.

    Args:
        forget: B_f records; ``token_nll`` is (n,) float32, ``length`` (B_f,).
        retain: B_r records to keep.
        beta: >= 0; 0 is gradient ascent.
        forget_weight: >= 0.
        retain_weight: >= 0.

    Source: Wang et al. 2025 (G-effect), arXiv 2502.19301, WGA.
    """
    weight = torch.exp(-beta * forget.token_nll).detach()  # (n,): p^beta
    rise = forget.mean_per_record(weight * forget.token_nll)  # (B_f,)
    return Terms(-forget_weight * rise, retain_weight * retain.nll_mean)


OBJECTIVES: dict[str, Objective] = {
    "grad_ascent": grad_ascent,
    "grad_diff": grad_diff,
    "npo": npo,
    "retain_finetune": retain_finetune,
    "wga": wga,
}
REFERENCES = ("forget_ref",)


def resolve(objective: str | Objective) -> Objective:
    """The function that a name stands for; a function stands for itself."""
    return choose(OBJECTIVES, objective, "objective") if isinstance(objective, str) else objective


def check_objective(objective: str | Objective, settings: Mapping[str, Any]) -> Needs:
    """What an objective asks for, with its settings checked."""
    return needs(resolve(objective), settings)


@dataclass(frozen=True)
class Needs:
    """What an objective asks for: sets of records, references, and its settings."""

    sets: tuple[str, ...]
    references: tuple[str, ...]
    settings: dict[str, Any]


def needs(objective: Objective, settings: Mapping[str, Any] | None = None) -> Needs:
    """Read an objective's signature and put ``settings`` over its defaults.

    Raises:
        WagleError: a setting that the objective does not have, or a parameter nobody supplies.
    """
    sets, references, defaults = [], [], {}
    for name, parameter in inspect.signature(objective).parameters.items():
        if name in {"forget", "retain"}:
            sets.append(name)
        elif name in REFERENCES:
            references.append(name)
        elif parameter.default is not inspect.Parameter.empty:
            defaults[name] = parameter.default
        else:
            raise WagleError(
                f"an objective cannot ask for {name!r} (known: forget, retain, {', '.join(REFERENCES)})"
            )
    for name in settings or {}:
        if name not in defaults:
            guess = nearest(name, defaults)
            hint = f"; nearest: {guess}" if guess else ""
            raise WagleError(
                f"the objective has no setting {name!r}{hint} (known: {', '.join(defaults) or 'none'})"
            )
    return Needs(tuple(sets), tuple(references), {**defaults, **(settings or {})})
