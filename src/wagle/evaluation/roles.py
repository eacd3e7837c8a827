"""The roles of a comparison: model, before, reference. Each must be another model.

A comparison of a model with itself finds no difference, and a reference that knows the forget set is
no target of forgetting: both would pass as success, so both are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from wagle.evaluation.figures import CALLED, Figure, Measured
from wagle.evaluation.result import Evaluation
from wagle.metrics.statistics import bootstrap_interval
from wagle.system.errors import WagleError
from wagle.system.files.reading import one_line

NAMED = {"model": "the model", **CALLED}  # every role, in messages
KNOWN = 0.5  # of its leading figure, from which a reference may know the forget set by heart
NEAR = 0.1  # share of the figure before by which the reference must clearly fall short of it
_LEADING = ("probability", "verbmem")  # figures that say how much of the forget set is known
_WANTED = {
    ("model", "before"): "as the model before, name the one that unlearning started from",
    ("model", "reference"): "as the reference, name a model that never learned the forget set",
    ("before", "reference"): "as the reference, name a model that never learned the forget set",
}


def roles_of(details: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Path, fingerprint and kind of every role, from the details of a result; None if not there."""
    entries = {role: details.get(role) for role in NAMED}
    return {
        role: None
        if entry is None
        else {"kind": "model", "path": None, "fingerprint": None}
        | {key: entry[key] for key in ("kind", "path", "fingerprint", "patches") if key in entry}
        for role, entry in entries.items()
    }


def role_text(entry: Mapping[str, Any]) -> str:
    """A role's path, kind and short fingerprint, as tables and messages show them."""
    patches = "".join(f" with {one_line(name)}" for name in entry.get("patches") or ())
    mark, kind = entry.get("fingerprint"), entry.get("kind", "model")
    told = ["fingerprint not known" if mark is None else one_line(mark[:12])]
    if kind != "model":
        told.insert(0, one_line(kind))
    return f"{one_line(entry.get('path') or 'a live model')}{patches} ({', '.join(told)})"


def check_distinct(
    roles: Mapping[str, Mapping[str, Any] | None], *, unchanged: bool = False
) -> None:
    """Refuse two roles with one fingerprint; one that is not known is compared with nothing.

    Args:
        roles: entries by role, as in ``roles_of``.
        unchanged: the model may be the model before: nothing was unlearned, on purpose.

    Raises:
        WagleError: names both roles, and what should stand there.
    """
    for pair in combinations(NAMED, 2):
        one, other = (roles.get(role) or {} for role in pair)
        mark = one.get("fingerprint")
        if mark is None or mark != other.get("fingerprint"):
            continue
        if unchanged and pair == ("model", "before"):
            continue
        raise WagleError(
            f"{NAMED[pair[0]]} and {NAMED[pair[1]]} are the same model: {role_text(one)} and "
            f"{role_text(other)}; {_WANTED[pair]}"
        )


def check_roles(
    own: Mapping[str, Any],
    beside: Mapping[str, tuple[Evaluation, Mapping[str, Any]]],
    *,
    unchanged: bool = False,
    seed: int = 0,
) -> None:
    """Both checks of the roles of a result.

    Args:
        own: the entry of the model.
        beside: result and entry of the model before and of the reference, as far as there are any.
        unchanged: as in ``check_distinct``.
        seed: as in ``check_reference``.

    Raises:
        WagleError: as ``check_distinct`` and ``check_reference`` do.
    """
    roles = {"model": own, **{role: entry for role, (_, entry) in beside.items()}}
    check_distinct(roles, unchanged=unchanged)
    if {"before", "reference"} <= beside.keys():
        check_reference(beside["before"][0], beside["reference"][0], roles, seed=seed)


def check_reference(
    before: Evaluation | Measured,
    reference: Evaluation | Measured,
    roles: Mapping[str, Mapping[str, Any] | None] | None = None,
    *,
    seed: int = 0,
) -> None:
    """Refuse a reference that knows the forget set as well as the model before.

    It does if its leading figure (the probability of the right answers; for ``muse`` how much of a
    passage it continues) is at least one half, and not clearly below that of the model before: the
    95 % interval of the difference, paired over the records, does not lie wholly above a tenth of the
    figure before. Below one half, nothing tells such a reference from one that is innocent beside a
    model before that never knew: there the verdict is ``inconclusive``.

    Args:
        before: the model before unlearning.
        reference: the model that should never have learned the forget set.
        roles: entries by role, for the message.
        seed: of the bootstrap.

    Raises:
        WagleError: says both figures, and what to do.
    """
    for metric in _LEADING:
        then, goal = (e.figures.get("forget", {}).get(metric) for e in (before, reference))
        if then is None or goal is None or None in (then.value, goal.value):
            continue
        if goal.number < KNOWN or _gap(then, goal, seed) > NEAR * then.number:
            continue
        entry = (roles or {}).get("reference")
        shown = "" if entry is None else f" {role_text(entry)}"
        raise WagleError(
            f"the reference{shown} knows the forget set as well as the model before: {metric} "
            f"{goal.number:.3f} beside {then.number:.3f}; it learned these records, or neither model "
            "did and the answers are easy to guess: give a reference that never learned them"
        )


def _gap(then: Figure, goal: Figure, seed: int) -> float:
    """The lower end of the 95 % interval of how far the reference falls short of the model before."""
    own, other = then.per_record, goal.per_record
    if not own or own.keys() != other.keys():
        return then.low - goal.high
    return bootstrap_interval([own[place] - other[place] for place in own], seed)[0]
