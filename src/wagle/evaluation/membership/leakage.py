"""Privacy leakage: figures from the membership scores of two sets of texts or answers.

The sets are ``forget`` and ``holdout``, texts of the same kind that no model was trained on. There
are scores per set and attack, as ``mia_ATTACK``; over both sets the AUC and the shares found; and,
against a retrained model over the same texts, the leakage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wagle.evaluation.asking.requests import GRADIENTS, Answers
from wagle.evaluation.figures import CALLED, HIGHER, OVERALL, TARGET, Figure, mean_figure
from wagle.evaluation.membership.requests import Attack, Probe
from wagle.evaluation.served.absent import absent_figure, is_absent, lost_attacks, why_absent
from wagle.metrics.membership import (
    HIGHEST_REFERENCE,
    Trace,
    auc,
    check_reference,
    privacy,
    privleak,
    rel_diff,
    tpr_at_fpr,
)
from wagle.metrics.statistics import AUC_REPLICATES, auc_replicates, percentiles, same_records
from wagle.system.errors import WagleError

Figures: TypeAlias = Mapping[str, Mapping[str, Figure]]
Rows: TypeAlias = Mapping[str, float]

HEADLINE = "min_k"
SETS = ("forget", "holdout")
_METHOD = f"bootstrap 95 %, {AUC_REPLICATES} replicates"
_LEAKS: dict[str, tuple[Callable[[float, float], float | None], str]] = {
    "privleak": (privleak, "per cent"),
    "rel_diff": (rel_diff, "per cent"),
    "privacy": (privacy, "share"),
}


def membership_figures(
    traces: Mapping[str, Sequence[Trace]],
    attacks: Mapping[str, Attack],
    *,
    note: str | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Figure]]:
    """Every attack's scores per set, their AUC, and the shares found at 1 % and 5 % false alarms.

    Args:
        traces: the traces of ``forget`` and ``holdout``.
        attacks: from ``attack_table``.
        note: for the reader of the AUCs.
        seed: for the intervals.
    """
    figures: dict[str, dict[str, Figure]] = {name: {} for name in (*SETS, OVERALL)}
    for label, attack in attacks.items():
        rows = {name: {t.place: attack.score(t) for t in traces[name]} for name in SETS}
        for name in SETS:
            figures[name][f"mia_{label}"] = mean_figure(
                rows[name], unit=attack.unit, target="reference", seed=seed
            )
        figures[OVERALL] |= _found(rows, label, note, seed)
    for name in SETS:
        sizes = {t.place: float(t.size) for t in traces[name] if t.size is not None}
        if sizes:  # builds of zlib differ, so the divisor is kept
            figures[name]["zlib_bytes"] = mean_figure(sizes, unit="bytes", seed=seed)
    return figures


def asked_figures(
    probes: Mapping[str, Sequence[Probe]],
    answers: Answers,
    attacks: Mapping[str, Attack],
    *,
    mean_norm: bool = False,
    note: str | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Figure]]:
    """``membership_figures`` from answers; ``mean_norm`` takes OpenUnlearning's gradient norm."""
    lost = lost_attacks(attacks, answers.absent)
    able = {label: attack for label, attack in attacks.items() if label not in lost}
    if GRADIENTS in answers.absent:
        probes = {name: [replace(p, gradient=None) for p in made] for name, made in probes.items()}
    traces = {
        name: [probe.trace(answers, mean_norm=mean_norm) for probe in made]
        for name, made in probes.items()
        if able
    }
    found = membership_figures(traces, able, note=note, seed=seed) if able else {}
    for label, why in lost.items():
        absent = absent_figure(why, unit=attacks[label].unit, target="reference")
        for name in SETS:
            found.setdefault(name, {})[f"mia_{label}"] = absent
    return found


def _found(rows: Mapping[str, Rows], label: str, note: str | None, seed: int) -> dict[str, Figure]:
    """The AUC of an attack, and the shares found by looking familiar or forgotten."""
    forget, holdout = (list(rows[name].values()) for name in SETS)
    count = len(forget) + len(holdout)
    interval = percentiles(auc_replicates(holdout, forget, seed))
    found = {
        f"auc_{label}": Figure(
            auc(forget, holdout),
            interval,
            _METHOD,
            unit="AUC",
            target="reference",
            note=note,
            count=count,
        )
    }
    for way, forgotten in (("", False), ("forgotten_", True)):
        for percent in (1, 5):
            found[f"tpr_{percent}_{way}{label}"] = Figure(
                tpr_at_fpr(forget, holdout, f"0.0{percent}", forgotten=forgotten),
                None,
                "none",
                unit=f"share of the forget texts at {percent} % false alarms",
                target="reference",
                count=count,
            )
    return found


# ---------------------------------------------------------------------------------------------
# Against a reference


def no_leakage(note: str) -> dict[str, Figure]:
    """The headline's leakage when it cannot be measured, with the reason."""
    return {"privleak": Figure(None, None, "none", unit="per cent", target=0, note=note)}


def leakage_figures(
    own: Figures, reference: Figures, *, seed: int = 0, refuse: bool = True
) -> dict[str, Figure]:
    """Privacy leakage per attack against a retrained model; plain names are the headline's.

    ``privleak`` (0 is ideal), ``rel_diff`` and ``privacy`` (1 is ideal) are those of ``min_k``,
    ``privleak_loss`` and so on those of the others. The intervals draw the same texts for both
    models. If the loss was measured, the attack ``reference`` is added.

    Args:
        own: the model's ``membership_figures``, made now or read back.
        reference: those of a model that never learned the forget texts.
        seed: for the intervals.
        refuse: raise an error if the reference knows the forget set, by the headline's AUC;
            otherwise that leakage has no value, and a note says so.

    Raises:
        WagleError: the reference lacks an attack, was asked about other texts, or knows the forget
            set.
    """
    made: dict[str, Figure] = {}
    labels = [key.removeprefix("mia_") for key in own["forget"] if key.startswith("mia_")]
    for label in labels:
        if is_absent(own["forget"][f"mia_{label}"]) or _is_absent(reference, label):
            if label == HEADLINE:
                why = why_absent(own["forget"][f"mia_{label}"], reference["forget"][f"mia_{label}"])
                made["privleak"] = absent_figure(why, unit="per cent")
            continue
        rows, beside = _same_texts(own, reference, label)
        forget, holdout = (list(beside[name].values()) for name in SETS)
        retrained = auc(forget, holdout)
        if label == HEADLINE and refuse:
            check_reference(retrained)
        drawn = auc_replicates(holdout, forget, seed).tolist()
        made |= _leaks(rows, label, retrained, drawn, None, seed)
        if label == "loss":
            gaps = {n: {p: value - beside[n][p] for p, value in rows[n].items()} for n in SETS}
            made |= _found(gaps, "reference", None, seed)
    return made


def asked_leakage(
    own: Figures, reference: Figures, *, seed: int = 0, refuse: bool = True
) -> dict[str, Figure]:
    """``leakage_figures`` for a model with a holdout set, if the reference has one too."""
    if "holdout" not in own:
        return {}
    if "holdout" not in reference:
        return no_leakage("the reference has no membership scores")
    return leakage_figures(own, reference, seed=seed, refuse=refuse)


def check_leakage(
    places: Mapping[str, Collection[str]],
    labels: Iterable[str],
    reference: Figures,
    role: str = "reference",
    *,
    refuse: bool = True,
) -> None:
    """Refuse a reference against which leakage cannot be measured; no model is asked.

    Args:
        places: the places of the texts to forget and the holdout texts, by set.
        labels: the labels of the attacks.
        reference: the figures of a model that never learned the forget texts.
        role: that model's role; the model before unlearning may know them.
        refuse: also refuse a reference that knows them, by the headline's AUC.

    Raises:
        WagleError: the reference lacks an attack, was asked about other texts, or knows the forget
            set.
    """
    for label in labels:
        if _is_absent(reference, label):
            continue
        beside = _beside(places, reference, label, role)
        if label == HEADLINE and refuse and role == "reference":
            check_reference(auc(*(list(beside[name].values()) for name in SETS)))


def check_asked(
    probes: Mapping[str, Sequence[Probe]],
    attacks: Iterable[str],
    reference: Figures,
    role: str = "reference",
    *,
    refuse: bool = True,
) -> None:
    """``check_leakage`` for what will be asked, if the reference has a holdout set too."""
    if probes and "holdout" in reference:
        places = {name: [probe.place for probe in made] for name, made in probes.items()}
        check_leakage(places, attacks, reference, role, refuse=refuse)


def _is_absent(found: Figures, label: str) -> bool:
    """Whether a model could not be asked what an attack needs."""
    return is_absent(found.get("forget", {}).get(f"mia_{label}"))


def _beside(
    places: Mapping[str, Collection[str]], reference: Figures, label: str, role: str = "reference"
) -> dict[str, Rows]:
    """The reference's scores under an attack, by set, in the order of ``places``."""
    beside: dict[str, Rows] = {}
    for name in SETS:
        other = reference.get(name, {}).get(f"mia_{label}")
        if other is None:
            raise WagleError(
                f"{CALLED[role]} has no {name}.mia_{label}; evaluate it with the same settings, or "
                "leave that attack out"
            )
        wanted = dict.fromkeys(places[name], 0.0)
        same_records(wanted, other.per_record, f"privacy leakage (split {name})")
        beside[name] = {place: other.per_record[place] for place in wanted}
    return beside


def _same_texts(
    own: Figures, reference: Figures, label: str
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Both models' scores under an attack, by set, over the same texts in the same order."""
    rows: dict[str, Rows] = {name: own[name][f"mia_{label}"].per_record for name in SETS}
    return rows, _beside(rows, reference, label)


def privacy_replicates(
    own: Figures, reference: Figures, labels: Sequence[str], seed: int = 0
) -> NDArray[np.float64]:
    """Bootstrap replicates of ``privacy``, (attacks, 2 000).

    All attacks and both models draw the same texts, so a column is one draw of everything.

    Args:
        own: the model's ``membership_figures``.
        reference: those of a model that never learned the forget texts.
        labels: the labels of the attacks.
        seed: for the draws.
    """
    drawn = []
    for label in labels:
        pair = [
            auc_replicates(list(rows["holdout"].values()), list(rows["forget"].values()), seed)
            for rows in _same_texts(own, reference, label)
        ]
        drawn.append([privacy(a, r) for a, r in zip(*(one.tolist() for one in pair), strict=True)])
    return np.asarray(drawn)


def assumed_leakage(own: Figures, retrained: float, *, seed: int = 0) -> dict[str, Figure]:
    """The headline's leakage against an AUC given in place of a retrained model."""
    rows = {name: own[name][f"mia_{HEADLINE}"].per_record for name in SETS}
    note = f"against an AUC of {retrained:g} that was given, not measured"
    return _leaks(rows, HEADLINE, retrained, [retrained] * AUC_REPLICATES, note, seed)


def _leaks(
    rows: Mapping[str, Rows],
    label: str,
    retrained: float,
    references: Sequence[float],
    note: str | None,
    seed: int,
) -> dict[str, Figure]:
    """The three leakages of one attack; ``references`` are replicates of the AUC ``retrained``."""
    forget, holdout = (list(rows[name].values()) for name in SETS)
    replicates = auc_replicates(holdout, forget, seed).tolist()
    told = retrained <= HIGHEST_REFERENCE
    if not told:
        note = f"not reported: the reference's AUC is {retrained:.4g}, above {HIGHEST_REFERENCE}"
    made = {}
    for name, (leak, unit) in _LEAKS.items():
        value = leak(auc(forget, holdout), retrained) if told else None
        drawn = [leak(a, r) for a, r in zip(replicates, references, strict=True)]
        whole = [one for one in drawn if one is not None]
        sure = value is not None and len(whole) == len(drawn)
        made[name if label == HEADLINE else f"{name}_{label}"] = Figure(
            value,
            percentiles(np.asarray(whole)) if sure else None,
            _METHOD if sure else "none: not defined in some replicates",
            direction=HIGHER if name == "privacy" else TARGET,
            unit=unit,
            target=None if name == "privacy" else 0,
            note="not defined: the reference's own AUC is 0" if told and value is None else note,
            count=len(forget) + len(holdout),
        )
    return made
