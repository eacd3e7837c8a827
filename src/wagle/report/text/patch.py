"""Tables of patches."""

from __future__ import annotations

from collections.abc import Sequence

from wagle.patch.application import Applied
from wagle.patch.verification import Verification
from wagle.report.text.tables import facts


def applied_table(applied: Applied, patches: Sequence[str]) -> str:
    """What ``wagle patch apply`` prints: its result, and where several patches overlap."""
    promise = "as the last patch promises" if len(patches) > 1 else "as the patch promises"
    said = promise if applied.promised else "which no patch promises: they were made independently"
    rows = [("result", f"{applied.fingerprint[:12]}, {said}")]
    for (first, second), found in applied.overlaps.items():
        text = (
            f"{patches[first]} and {patches[second]} both change {found.count:,} weights, "
            f"{found.differing:,} to different values"
        )
        rows += [
            ("overlap", text),
            *(("", f"{n}: {count:,}") for n, count in found.tensors.items()),
        ]
    return "\n".join(facts(rows))


def verification_table(checked: Verification) -> str:
    """What ``wagle patch verify`` prints: the counts, and the proof or what breaks it."""
    tensors = len(checked.tensors)
    rows = [("changed", f"{checked.changed:,} of {checked.total:,} weights, in {tensors} tensors")]
    if checked.outside is not None:
        kept = checked.total - (checked.mask_count or 0)
        stray = checked.outside_mask or 0
        said = "all bit-identical" if not stray else f"{stray:,} CHANGED"
        rows.append(("mask", f"selects {checked.mask_count:,}; the other {kept:,} are {said}"))
        rows += [("", f"{name}: {n:,} outside the mask") for name, n in checked.outside.items()]
        if checked.mask_of_base is False:
            rows.append(("", "note: the mask was made for another model"))
    if checked.patch_problems is not None:
        one = checked.patches == 1
        fits = (
            "gives the result bit for bit" if one else "give the result bit for bit, in this order"
        )
        said = fits if checked.patch_matches else "DOES NOT FIT" if one else "DO NOT FIT"
        rows.append(("patch" if one else "patches", said))
        rows += [("", problem) for problem in checked.patch_problems]
    if not checked.changed:
        rows.append(("note", "the two models are equal"))
    return "\n".join(facts([*rows, ("proof", "holds" if checked.ok else "FAILS")]))
