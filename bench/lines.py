"""Lines of the benchmark's table: a figure with its bound."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One figure; ``ok`` is None if it has no bound."""

    row: str
    what: str
    value: float
    unit: str
    bound: str = ""
    ok: bool | None = None

    def text(self) -> str:
        """As a line of the table."""
        verdict = {None: "", True: "ok", False: "MISS"}[self.ok]
        return (
            f"{self.row:<13}{self.what:<57}{self.value:>11.4g} {self.unit:<9}"
            f"{self.bound:<34} {verdict}"
        ).rstrip()


def at_most(row: str, what: str, value: float, unit: str, limit: float, why: str = "") -> Line:
    """A line whose value must not exceed ``limit``."""
    bound = f"<= {limit:.4g}" + (f" = {why}" if why else "")
    return Line(row, what, value, unit, bound, value <= limit)


def at_least(row: str, what: str, value: float, unit: str, limit: float) -> Line:
    """A line whose value must reach ``limit``."""
    return Line(row, what, value, unit, f">= {limit:.4g}", value >= limit)
