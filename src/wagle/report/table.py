"""The tables of the command line, from files of a run folder: no model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

from wagle.evaluation.result import Evaluation
from wagle.files import read_json
from wagle.mask import Mask
from wagle.mask_algebra import Comparison, Overlap
from wagle.model import place
from wagle.patch import Applied, Verification
from wagle.report.attacks import strongest
from wagle.report.evaluations import entry, figure_lines, verdict_lines
from wagle.report.rows import ROLES
from wagle.report.templates import small


def summary_json(folder: Path) -> dict[str, Any]:
    """Figures, paired differences, verdict, costs and attacks of a run as JSON."""
    state = read_json(folder / "state.json")["stages"]
    evaluation = read_json(folder / "evaluation.json")
    found = {"evaluation": evaluation, "stages": state}
    after = {label: read_json(_file(folder, "after", label)) for label in _asked(evaluation)}
    found["differences"] = {
        label: {key: details[key] for key in ("changes", "differences") if key in details}
        for label, details in after.items()
    }
    made = state.get("attacks", {}).get("attacks", {})
    if made:
        found["attacks"] = {
            label: read_json(folder / "attacks" / f"{label}.json") for label in made
        }
    return found


def _asked(evaluation: Mapping[str, Any]) -> list[str]:
    """What was asked: the recipe's own sets, by the name of their benchmark, and its benchmarks."""
    return ["qa", *evaluation.get("benchmarks", {})]


def _file(folder: Path, role: str, label: str) -> Path:
    tail = "" if label == "qa" else f"-{label}"
    return folder / "evaluation" / f"{role}{tail}.json"


def _evaluations(folder: Path, label: str) -> dict[str, Evaluation]:
    """The evaluations of a run by role, of its own sets or of a benchmark."""
    paths = {role: _file(folder, role, label) for role in ROLES}
    return {role: Evaluation.from_json(read_json(p)) for role, p in paths.items() if p.is_file()}


def summary_table(folder: Path, everything: bool = False) -> str:
    """What ``wagle run`` prints at its end.

    Args:
        folder: of a run that has an unlearned model.
        everything: all figures, not those alone that lead.
    """
    found = summary_json(folder)
    state = found["stages"]
    lines: list[str] = []
    for label in _asked(found["evaluation"]):
        title = [] if label == "qa" else [f"benchmark {label}"]
        lines += [*title, *figure_lines(_evaluations(folder, label), "after", everything), ""]
    for label, attack in found.get("attacks", {}).items():
        lines += entry("attack", f"{label}: {strongest(attack)}")
    for arm, control in state.get("controls", {}).get("arms", {}).items():
        lines += entry("control", f"{arm}: {_control_text(control)}")
    mask, unlearn, patch = state["mask"], state["unlearn"], state["patch"]
    of = f" of {mask['candidates']:,}" if "candidates" in mask else ""
    if "lora" in unlearn:
        lines += entry(
            "adapter",
            f"{unlearn['selected']:,}{of} weights trained, {unlearn['changed']:,} changed, then merged "
            "into the model",
        )
    else:
        lines += entry(
            "weights",
            f"{unlearn['selected']:,}{of} selected, {unlearn['changed']:,} changed, the rest "
            "bit-identical",
        )
    if "bytes" in patch:
        size = f"{patch['bytes'] / 1e6:.1f} MB, {patch['share_of_model']:.1%} of the model"
        lines += entry("patch", size)
    spent = {name: stage["seconds"] for name, stage in state.items()}
    seconds = {name: value for name, value in spent.items() if value >= 0.5}
    peak = max(stage["peak_bytes"] for stage in state.values()) / 1e9
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    lines += entry("time", f"{sum(spent.values()):.0f} s ({parts}); peak memory {peak:.2f} GB")
    lines += verdict_lines(state["after"]["verdict"], state["after"]["reasons"])
    return "\n".join([*lines, *entry("report", str(folder / "report.html"))])


def _control_text(control: Mapping[str, Any]) -> str:
    """What a control arm ended with, and its verdict."""
    found = control["summary"]
    texts = [
        f"{name}.{metric} {'-' if (value := found[name][metric]) is None else small(value)}"
        for name, metric in (
            ("forget", "probability"),
            ("forget", "paraphrased"),
            ("forget", "extraction_strength"),
            ("retain", "probability"),
        )
        if metric in found.get(name, {})
    ]
    return f"{', '.join(texts)}; {control['verdict']}"


def mask_json(mask: Mask) -> dict[str, Any]:
    """A mask's description, and (selected, weights) per ratio, block and kind, as JSON."""
    found = {by: mask.densities(by) for by in ("block", "kind")}
    return {
        **mask.describe(),
        "density": {
            str(ratio): {
                by: {key: (chosen[which], of) for key, (chosen, of) in table.items()}
                for by, table in found.items()
            }
            for which, ratio in enumerate(mask.ratios)
        },
    }


def mask_table(mask: Mask) -> str:
    """A mask's counts and densities as text, one column per ratio."""
    given = mask.metadata.get("settings") or {}
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in given.items())
    lines = [
        f"score        {mask.metadata['score']}" + (f" ({settings})" if settings else ""),
        f"model        {str(mask.metadata.get('model'))[:12]}",
        f"candidates   {mask.candidates:,}",
        *_ratio_lines(mask),
    ]
    ratios = [f"{ratio:.6g}" for ratio in mask.ratios]
    for by in ("block", "kind"):
        rows = {
            key: [f"{count / max(1, of):.3f}" for count in chosen]
            for key, (chosen, of) in mask.densities(by).items()
        }
        lines += ["", *_columns(f"density per {by}", ratios, rows)]
    return "\n".join(lines)


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ratio_lines(mask: Mask) -> list[str]:
    dominated: list[float | None] = mask.metadata.get("theta_share") or [None] * len(mask.ratios)
    lines = []
    for ratio, count, share in zip(mask.ratios, mask.counts, dominated, strict=True):
        exact = int(Fraction(str(ratio)) * mask.candidates) == count
        text = f"ratio {ratio:<6.6g} {count:,} weights" + ", exactly floor(ratio * N)" * exact
        lines.append(text + ("" if share is None else f"; theta_share {share:.3f}"))
    if any(share is not None for share in dominated):
        lines.append("theta_share: share of selected weights in which the weight term dominates")
    return lines


def _columns(title: str, heads: list[str], rows: Mapping[str, list[str]]) -> list[str]:
    """Aligned lines: a title and heads, then names with their cells."""
    first = max(24, *(len(name) + 1 for name in [title, *rows]))
    widths = [
        max(8, *(len(cell) + 2 for cell in column))
        for column in zip(heads, *rows.values(), strict=True)
    ]
    return [
        name.ljust(first) + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
        for name, cells in [(title, heads), *rows.items()]
    ]


_BARS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 40  # characters: with the names, a line fits a screen of 100


def scores_table(mask: Mask) -> str:
    """Where the scores of each block lie: the median's power of two, and a small histogram."""
    kept: Mapping[str, list[list[Any]]] = mask.metadata.get("score_histogram") or {}
    order = dict.fromkeys([*(place(name)[0] or name for name in mask.shapes), *kept])
    found = {key: kept[key] for key in order if sum(n for _, n in kept.get(key, []))}
    shown = [e for bins in found.values() for e in _frequent(bins)]
    if not shown:
        return "scores       the mask keeps no histogram of them"
    low, high = min(shown), max(shown)
    step = -(-(high - low + 1) // _BAR_WIDTH)
    rows = {key: [_median(bins), _not_positive(bins)] for key, bins in found.items()}
    lines = _columns("scores per block", ["median", "<= 0"], rows)
    powers = f", {step} powers a column" if step > 1 else ""
    bars = [f"2^{low} to 2^{high + 1}{powers}, the rest in the ends"]
    bars += [_bar(bins, low, high, step) for bins in found.values()]
    return "\n".join(f"{line}  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True))


def _frequent(bins: list[list[Any]]) -> list[int]:
    """The exponents that at least one score in a thousand has: tails would widen the picture."""
    total = sum(n for _, n in bins)
    return [exponent for exponent, n in bins if exponent is not None and 1000 * n >= total]


def _not_positive(bins: list[list[Any]]) -> str:
    return f"{sum(n for exponent, n in bins if exponent is None) / sum(n for _, n in bins):.1%}"


def _median(bins: list[list[Any]]) -> str:
    """The bin that holds the median score."""
    ordered = sorted(bins, key=lambda b: -math.inf if b[0] is None else b[0])
    counts = [n for _, n in ordered]
    half = sum(counts) / 2
    middle = next(i for i, below in enumerate(accumulate(counts)) if below >= half)
    exponent = ordered[middle][0]
    return "<= 0" if exponent is None else f"2^{exponent}"


def _bar(bins: list[list[Any]], low: int, high: int, step: int) -> str:
    """A histogram in characters, ``step`` powers of two in each."""
    heights = [0] * ((high - low) // step + 1)
    for exponent, n in bins:
        if exponent is not None:
            heights[(min(max(exponent, low), high) - low) // step] += n
    most = max(1, *heights)
    return "".join(_BARS[-(-8 * height // most)] for height in heights)


# ---------------------------------------------------------------------------------------------
# Comparison of masks


def comparison_json(found: Comparison) -> dict[str, Any]:
    """How far two masks agree as JSON."""
    return {
        "same_model": found.same_model,
        "plain_chance_jaccard": found.plain_chance,
        "overall": _overlap_json(found.overall),
        "places": {key: _overlap_json(place) for key, place in found.places.items()},
    }


def _overlap_json(found: Overlap) -> dict[str, Any]:
    return {
        **asdict(found),
        "jaccard": found.jaccard,
        "chance_jaccard": found.chance_jaccard,
        "overlap": found.coefficient,
    }


def comparison_table(found: Comparison) -> str:
    """How far two masks agree as text: overall, then per block."""
    overall = found.overall
    lines = [
        f"weights      {overall.weights:,}: A selects {overall.a:,}, B {overall.b:,}, both "
        f"{overall.both:,}",
        f"Jaccard      {_share(overall.jaccard)}",
        f"by chance    {_share(overall.chance_jaccard)} with these densities in every parameter, "
        f"{_share(found.plain_chance)} with these ratios alone",
        f"overlap      {_share(overall.coefficient)} of the smaller mask",
    ]
    if not found.same_model:
        lines.append("note         the masks were made for two different models")
    rows = {"all": _overlap_cells(overall)}
    rows |= {key: _overlap_cells(place) for key, place in found.places.items()}
    heads = ["weights", "A", "B", "overlap", "Jaccard", "by chance"]
    return "\n".join([*lines, "", *_columns("density and agreement", heads, rows)])


def _overlap_cells(found: Overlap) -> list[str]:
    return [
        f"{found.weights:,}",
        f"{found.a / found.weights:.3f}",
        f"{found.b / found.weights:.3f}",
        *map(_share, (found.coefficient, found.jaccard, found.chance_jaccard)),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def applied_table(applied: Applied, patches: Sequence[str]) -> str:
    """What ``wagle patch apply`` prints of its result, and of where several patches overlap."""
    promise = "as the last patch promises" if len(patches) > 1 else "as the patch promises"
    said = promise if applied.promised else "which no patch promises: they were made independently"
    lines = [f"result       {applied.fingerprint[:12]}, {said}"]
    for (first, second), found in applied.overlaps.items():
        lines.append(
            f"overlap      {patches[first]} and {patches[second]} both change {found.count:,} weights, "
            f"{found.differing:,} to different values"
        )
        lines += [f"             {name}: {count:,}" for name, count in found.tensors.items()]
    return "\n".join(lines)


def verification_table(checked: Verification) -> str:
    """What ``wagle patch verify`` prints: the counts, and the proof or what breaks it."""
    lines = [
        f"changed      {checked.changed:,} of {checked.total:,} weights, in {len(checked.tensors)} tensors"
    ]
    if checked.outside is not None:
        kept = checked.total - (checked.mask_count or 0)
        stray = checked.outside_mask or 0
        said = "all bit-identical" if not stray else f"{stray:,} CHANGED"
        lines.append(f"mask         selects {checked.mask_count:,}; the other {kept:,} are {said}")
        lines += [
            f"             {name}: {count:,} outside the mask"
            for name, count in checked.outside.items()
        ]
        if checked.mask_of_base is False:
            lines.append("             note: the mask was made for another model")
    if checked.patch_problems is not None:
        one = checked.patches == 1
        fits = (
            "gives the result bit for bit" if one else "give the result bit for bit, in this order"
        )
        said = fits if checked.patch_matches else "DOES NOT FIT" if one else "DO NOT FIT"
        lines.append(f"{'patch' if one else 'patches':<13}{said}")
        lines += [f"             {problem}" for problem in checked.patch_problems]
    if not checked.changed:
        lines.append("note         the two models are equal")
    lines.append(f"proof        {'holds' if checked.ok else 'FAILS'}")
    return "\n".join(lines)
