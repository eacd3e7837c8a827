"""Landing: from the last look that went too far, back to where the figure lies in its band.

One optimiser step can be wider than the band of the reference, so where training stops would be a
coin toss. Between two looks the selected weights are taken along a straight line: at ``share`` 0
they are those of the earlier look, at 1 those of the later one. Bisection finds the point whose
figure lies in the aim, measured as an evaluation measures it, in the precision of saving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from wagle.metrics.bands import Band
from wagle.system.mapped import Lazy, let_go
from wagle.system.memory import Spill
from wagle.unlearning.training.weights.selected import SelectedWeights, Vectors
from wagle.unlearning.watching.rules import Figures
from wagle.unlearning.watching.targets import Target

LOOKS = 12  # of a bisection, at most: the last one moves the weights by 1/2048 of the line
EDGE = 6  # halvings on the way to the edge of a condition of ``best``

_OF = "@"  # between the name of a look and that of a parameter, in a checkpoint
Measure = Callable[[], Figures]


@dataclass(frozen=True)
class Landed:
    """Where a run landed.

    Attributes:
        figure: the figure that was brought into its aim, such as ``forget.probability``.
        value: its value there, as an evaluation would measure it.
        aim: the range that was aimed at.
        band: the range that it must not leave.
        between: the steps of the two looks.
        share: how far from the earlier to the later look the weights are, 0 to 1.
        looks: how many looks it took.
        leaks: whether another probe of the look still lies above the reference's band.
    """

    figure: str
    value: float
    aim: Band
    band: Band
    between: tuple[int, int]
    share: float
    looks: int
    leaks: bool

    @property
    def inside(self) -> bool:
        """Whether the figure lies in the band."""
        return self.band.contains(self.value)

    def told(self) -> dict[str, Any]:
        """The same as plain values, for ``state.json``."""
        return {**asdict(self), "aim": list(self.aim), "band": list(self.band)}


class Trail:
    """The masters of looks that a run may go back to, by name, in files that leave nothing behind.

    Args:
        selected: the weights.
    """

    def __init__(self, selected: SelectedWeights) -> None:
        self.selected = selected
        self.steps: dict[str, int] = {}
        self._kept: dict[str, Spill] = {}

    def keep(self, name: str, step: int, masters: Mapping[str, Tensor] | None = None) -> None:
        """Keep the masters as they are, or those given, under a name."""
        self.drop(name)
        kept = self._kept[name] = Spill(0)
        for own, master in (self.selected.masters() if masters is None else masters).items():
            kept[own] = master
            let_go(master)
        self.steps[name] = step

    def rename(self, name: str, new: str) -> None:
        """Keep what has one name under another."""
        self.drop(new)
        if name in self.steps:
            self._kept[new], self.steps[new] = self._kept.pop(name), self.steps.pop(name)

    def drop(self, name: str) -> None:
        """Forget the masters of a name, if there are any."""
        if name in self.steps:
            self._kept.pop(name).close()
            del self.steps[name]

    def of(self, name: str) -> Vectors:
        """The masters of a name, by parameter."""
        return self._kept[name]

    def close(self) -> None:
        """Release the files."""
        for name in list(self.steps):
            self.drop(name)

    def tensors(self) -> Lazy:
        """Everything that is kept, for a checkpoint; each vector is read when it is asked for."""
        homes = {
            f"{name}{_OF}{own}": (kept, own) for name, kept in self._kept.items() for own in kept
        }
        return Lazy({key: partial(kept.__getitem__, own) for key, (kept, own) in homes.items()})

    def restore(self, tensors: Mapping[str, Tensor], steps: Mapping[str, int]) -> None:
        """Keep again what a killed run had kept; other tensors are left alone."""
        for name, step in steps.items():
            own = {
                key.partition(_OF)[2]: partial(tensors.__getitem__, key)
                for key in tensors
                if _named(key, name)
            }
            self.keep(name, step, Lazy(own))


def _named(key: str, name: str) -> bool:
    return key.startswith(name + _OF)


@dataclass(frozen=True)
class Line:
    """The straight line between the weights of two looks.

    Attributes:
        selected: the weights, which are moved.
        early: the masters of the earlier look, by parameter name.
        late: those of the later one.
        settle: makes the model what will be saved, once the masters have moved.
    """

    selected: SelectedWeights
    early: Vectors
    late: Vectors
    settle: Callable[[], None]

    def go(self, share: float) -> None:
        """Move the weights to a point, ``early + share * (late - early)``, in float32."""
        self.selected.place(self.early, self.late, share)
        self.settle()


def land(line: Line, measure: Measure, target: Target, between: tuple[int, int]) -> Landed:
    """Move the weights to the point of a line that meets a target.

    The parts of the band are aimed at in turn: the next one if other probes leak in this one.

    Args:
        line: its late end is where the weights are.
        measure: the figures of the model as it is.
        target: where they should be.
        between: the steps of the two ends.
    """
    looks = 0
    for aim in target.aims:
        share, figures, more = bisect(line, measure, target, aim)
        looks += more
        if not target.leaks(figures):
            break
    value, leaks = figures[target.figure], target.leaks(figures)
    return Landed(target.figure, value, aim, target.band, between, share, looks, leaks)


def bisect(line: Line, measure: Measure, target: Target, aim: Band) -> tuple[float, Figures, int]:
    """Find the point of a line whose figure lies in the aim, and move the weights there.

    If the figure jumps over the aim, the point nearest to its centre is taken, and one in the band
    before any outside it.

    Returns:
        The point's share, its figures, and the number of looks.
    """
    low, high, share = 0.0, 1.0, 1.0
    seen: list[tuple[bool, float, float]] = []
    found: dict[float, Figures] = {}
    while len(seen) < LOOKS:
        line.go(share)
        found[share] = figures = measure()
        value = figures[target.figure]
        if aim.contains(value):
            return share, figures, len(seen) + 1
        seen.append((not target.band.contains(value), abs(value - aim.centre), share))
        far = value < aim.low if target.falling else value > aim.high
        if share == 1.0 and not far:  # the line does not reach the aim
            break
        low, high = (low, share) if far else (share, high)
        share = (low + high) / 2
    _, _, share = min(seen)
    line.go(share)
    return share, found[share], len(seen)


def edge(line: Line, meets: Callable[[], bool]) -> float:
    """The point of a line nearest to its early end at which conditions are still met.

    Args:
        line: the conditions are met at its late end, and not at its early one.
        meets: whether the model as it is meets them.

    Returns:
        Its share; the weights are left at whichever point was tried last.
    """
    low, high = 0.0, 1.0
    for _ in range(EDGE):
        share = (low + high) / 2
        line.go(share)
        low, high = (low, share) if meets() else (share, high)
    return high
