"""Tables and JSON of masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from itertools import accumulate
from typing import Any

from wagle.mask.algebra import Comparison, Overlap
from wagle.mask.mask import Mask
from wagle.model.structure import place


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
