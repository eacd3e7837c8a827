"""What an audit and a purge found, as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def audit_lines(found: Mapping[str, Any]) -> str:
    """The checks that hold, a line each, and the outcome with its reason.

    Args:
        found: what ``wagle audit --json`` prints.
    """
    lines = [f"holds         {line}" for line in found["passed"]]
    for name, title in (("compared", "probes"), ("questions", "questions")):
        lines += [
            f"{title:<13} {_figure(one)}, {one['n']} {'record' if one['n'] == 1 else 'records'}"
            for one in found[name]
        ]
    return "\n".join([*lines, f"{found['outcome']:<13} {found['reason']}"])


def _figure(one: Mapping[str, Any]) -> str:
    """A figure of every model that was asked."""
    said = [f"{one['figure']}: model {one['model']:.3f}"]
    if one["base"] is not None:
        said.append(f"before {one['base']:.3f}")
    if one["reference"] is not None:
        said.append(f"reference {one['reference']:.3f} ({one['low']:.3f} to {one['high']:.3f})")
    return ", ".join(said)


def receipt_lines(receipt: Mapping[str, Any], done: bool) -> str:
    """What a purge deleted and rewrote, or would.

    Args:
        receipt: the receipt.
        done: whether it was done, or only listed.
    """
    lines = [
        f"{'deleted' if done else 'would delete':<14}{one['path']} ({_size(one)})"
        for one in receipt["deleted"]
    ]
    lines += [
        f"{'rewrote' if done else 'would rewrite':<14}{one['path']} ({one['why']})"
        for one in receipt["rewritten"]
    ]
    return "\n".join([*lines, *_notes(receipt["notes"])] or ["nothing to purge"])


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"{'note':<14}{line}" for line in notes]


def _size(one: Mapping[str, Any]) -> str:
    files = f"{one['files']:,} {'file' if one['files'] == 1 else 'files'}"
    return f"{files}, {one['bytes'] / 1e6:.1f} MB"
