"""The tables of the command line, from files of a run folder: no model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wagle.evaluation.metrics import METRICS
from wagle.files import read_json
from wagle.mask import Mask
from wagle.patch import Verification


def summary_json(folder: Path) -> dict[str, Any]:
    """Figures, verdict and costs of a run as JSON."""
    state = read_json(folder / "state.json")["stages"]
    return {"evaluation": read_json(folder / "evaluation.json"), "stages": state}


def summary_table(folder: Path) -> str:
    """What ``wagle run`` prints at its end."""
    found = summary_json(folder)
    evaluation, state = found["evaluation"], found["stages"]
    lines = [f"{'':<16}{'':<22}{'before':>9}{'after':>9}{'reference':>11}"]
    for name in evaluation["before"]:
        for metric in METRICS:
            row = [
                (evaluation[role] or {}).get(name, {}).get(metric)
                for role in ("before", "after", "reference")
            ]
            if any(value is not None for value in row):
                cells = ["-" if value is None else f"{value:.3f}" for value in row]
                lines.append(f"{name:<16}{metric:<22}{cells[0]:>9}{cells[1]:>9}{cells[2]:>11}")
    lines.append("")
    mask, unlearn, patch = state["mask"], state["unlearn"], state["patch"]
    lines.append(
        f"weights      {unlearn['selected']:,} of {mask['candidates']:,} selected, "
        f"{unlearn['changed']:,} changed, the rest bit-identical"
    )
    if "bytes" in patch:
        lines.append(
            f"patch        {patch['bytes'] / 1e6:.1f} MB, {patch['share_of_model']:.1%} of the model"
        )
    seconds = {name: stage["seconds"] for name, stage in state.items()}
    peak = max(stage["peak_bytes"] for stage in state.values()) / 1e9
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    lines.append(f"time         {sum(seconds.values()):.0f} s ({parts}); peak memory {peak:.2f} GB")
    lines.append(f"verdict      {state['after']['verdict']}")
    lines.extend(f"             {reason}" for reason in state["after"]["reasons"])
    lines.append(f"report       {folder / 'report.html'}")
    return "\n".join(lines)


def mask_json(mask: Mask) -> dict[str, Any]:
    """A mask's description and densities as JSON."""
    singles = [mask.at(ratio) for ratio in mask.ratios] if len(mask.ratios) > 1 else [mask]
    return {
        **mask.describe(),
        "density": {
            str(single.ratio): {by: single.density(by) for by in ("block", "kind")}
            for single in singles
        },
    }


def mask_table(mask: Mask) -> str:
    """A mask's counts and densities as text, one column per ratio."""
    singles = [mask.at(ratio) for ratio in mask.ratios] if len(mask.ratios) > 1 else [mask]
    lines = [
        f"score        {mask.metadata['score']} {mask.metadata['settings']}",
        f"model        {mask.metadata['model'][:12]}",
        f"candidates   {mask.candidates:,}",
        *(f"ratio {s.ratio:<6} {s.count:,} weights, exactly floor(ratio * N)" for s in singles),
    ]
    for by in ("block", "kind"):
        tables = [single.density(by) for single in singles]
        lines += ["", f"{'density per ' + by:<40}" + "".join(f"{s.ratio:>9}" for s in singles)]
        for key in tables[0]:
            shares = [table[key][0] / max(1, table[key][1]) for table in tables]
            lines.append(f"{key:<40}" + "".join(f"{share:>9.3f}" for share in shares))
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
        lines.append(
            f"patch        {'gives the result bit for bit' if checked.patch_matches else 'DOES NOT FIT'}"
        )
        lines += [f"             {problem}" for problem in checked.patch_problems]
    if not checked.changed:
        lines.append("note         the two models are equal")
    lines.append(f"proof        {'holds' if checked.ok else 'FAILS'}")
    return "\n".join(lines)
