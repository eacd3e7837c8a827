"""Tables and JSON of masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import accumulate
from typing import Any

from wagle.mask.algebra import Comparison, Overlap
from wagle.mask.mask import Mask
from wagle.model.structure import place
from wagle.report.numbers import or_dash
from wagle.report.settings import described
from wagle.report.text.tables import aligned, facts


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
    settings = mask.metadata.get("settings") or {}
    lines = facts(
        [
            ("score", described(str(mask.metadata.get("score")), settings, "; ")),
            ("model", str(mask.metadata.get("model"))[:12]),
            ("candidates", f"{mask.candidates:,}"),
            *_ratio_facts(mask),
        ]
    )
    if any(share is not None for share in _dominated(mask)):
        lines.append("theta_share: share of selected weights where the weight term dominates")
    ratios = [f"{ratio:.6g}" for ratio in mask.ratios]
    for by in ("block", "kind"):
        rows = {
            key: [f"{count / max(1, of):.3f}" for count in chosen]
            for key, (chosen, of) in mask.densities(by).items()
        }
        lines += ["", *_columns(f"density per {by}", ratios, rows)]
    return "\n".join(lines)


def _dominated(mask: Mask) -> list[float | None]:
    return mask.metadata.get("theta_share") or [None] * len(mask.ratios)


def _ratio_facts(mask: Mask) -> Iterator[tuple[str, str]]:
    for ratio, count, share in zip(mask.ratios, mask.counts, _dominated(mask), strict=True):
        exact = int(Fraction(str(ratio)) * mask.candidates) == count
        text = f"{count:,} weights" + ", exactly floor(ratio * N)" * exact
        yield f"ratio {ratio:.6g}", text + ("" if share is None else f"; theta_share {share:.3f}")


_FIRST, _NUMBER = 24, 6  # least widths of names and of numbers


def _columns(
    title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]], bars: int = 0
) -> list[str]:
    """Aligned lines: a title and heads, then names with cells; the last ``bars`` are drawn."""
    numbers = range(1, len(heads) + 1 - bars)
    cells = [(title, *heads), *((name, *row) for name, row in rows.items())]
    first = max(_FIRST, *(len(name) + 1 for name, *_ in cells))
    return aligned(cells, right=numbers, least={0: first, **dict.fromkeys(numbers, _NUMBER)})


_BARS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 40  # characters: with the names, a line fits a screen of 100


def scores_table(mask: Mask) -> str:
    """Where the scores of each block lie: the median's power of two, and a small histogram."""
    kept: Mapping[str, list[list[Any]]] = mask.metadata.get("score_histogram") or {}
    order = dict.fromkeys([*(place(name)[0] or name for name in mask.shapes), *kept])
    found = {key: kept[key] for key in order if sum(n for _, n in kept.get(key, []))}
    shown = [e for bins in found.values() for e in _frequent(bins)]
    if not shown:
        return "\n".join(facts([("scores", "the mask stores no histogram of them")]))
    low, high = min(shown), max(shown)
    step = -(-(high - low + 1) // _BAR_WIDTH)
    powers = f", {step} powers a column" if step > 1 else ""
    heads = ["median", "<= 0", f"2^{low} to 2^{high + 1}{powers}, the rest in the ends"]
    rows = {
        key: [_median(bins), _not_positive(bins), _bar(bins, low, high, step)]
        for key, bins in found.items()
    }
    return "\n".join(_columns("scores per block", heads, rows, bars=1))


def _frequent(bins: list[list[Any]]) -> list[int]:
    """The exponents of at least one score in a thousand: tails would widen the picture."""
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
    """How far two masks agree, as JSON."""
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
    """How far two masks agree, as text: overall, then per block."""
    overall = found.overall
    said = [
        (
            "weights",
            f"{overall.weights:,}: A selects {overall.a:,}, B {overall.b:,}, both {overall.both:,}",
        ),
        ("Jaccard", or_dash(overall.jaccard)),
        (
            "by chance",
            f"{or_dash(overall.chance_jaccard)} with these densities in every parameter, "
            f"{or_dash(found.plain_chance)} with these ratios alone",
        ),
        ("overlap", f"{or_dash(overall.coefficient)} of the smaller mask"),
    ]
    if not found.same_model:
        said.append(("note", "the masks were made for two different models"))
    rows = {"all": _overlap_cells(overall)}
    rows |= {key: _overlap_cells(place) for key, place in found.places.items()}
    heads = ["weights", "A", "B", "overlap", "Jaccard", "by chance"]
    return "\n".join([*facts(said), "", *_columns("density and agreement", heads, rows)])


def _overlap_cells(found: Overlap) -> list[str]:
    return [
        f"{found.weights:,}",
        f"{found.a / found.weights:.3f}",
        f"{found.b / found.weights:.3f}",
        *map(or_dash, (found.coefficient, found.jaccard, found.chance_jaccard)),
    ]
