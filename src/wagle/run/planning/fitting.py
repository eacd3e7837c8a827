"""Whether a run will fit, looked at before any work: memory is a warning, a disk too small an error."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from wagle.run.opening import Run
from wagle.run.planning.machine import Machine, existing, this_machine
from wagle.run.planning.plan import CONTEXT, lasting
from wagle.run.planning.shapes import measure_shape, stored_width
from wagle.run.planning.stages import Way, stage_needs, ways
from wagle.run.planning.terms import Need
from wagle.run.planning.work import count_sets
from wagle.system.errors import DiskFull, WagleError
from wagle.system.memory import free_memory
from wagle.system.processes.group import local_device, several

logger = logging.getLogger(__name__)
_LONGEST = 64  # records of a set that are tokenised: the longest make the largest batch
_MARGIN = 0.85  # of what is predicted: only what surely does not fit is worth a word


def check_fit(run: Run, wanted: Sequence[str]) -> None:
    """Warn of a stage that needs more memory than there is; refuse a run that the disk cannot hold.

    Args:
        run: the run; stages that it has finished need nothing.
        wanted: the stages asked for.

    Raises:
        DiskFull: what the stages will leave is more than the disk has.
    """
    recipe = run.recipe
    if recipe.forget is None or run.whole is not None:
        return
    try:
        shape = measure_shape(run.models.structure(), stored_width(run.models.named))
    except (WagleError, AttributeError):  # an unusual model can still be run; it cannot be foreseen
        return
    sets, _ = count_sets(recipe, run.inputs, tokenised=True, longest=_LONGEST)
    machine = this_machine(run.folder, rates="none")
    eager = recipe.model.attention == "eager"
    needs = stage_needs(recipe, shape, sets, machine.free, eager=eager)
    left = {n: one for n, one in needs.items() if n in wanted and n not in run.state["stages"]}
    refuse_small_disk(left, machine, run.folder)
    if recipe.model.shard or several():  # each process has its part
        return
    device = local_device()
    free = machine.free if device.type == "cpu" else free_memory(device)
    said = short_of(left, free, ways(recipe, shape, sets, eager=eager), card=device.type != "cpu")
    if said:
        logger.warning("%s", said)


def refuse_small_disk(needs: Mapping[str, Need], machine: Machine, folder: Path) -> None:
    """Refuse to begin what would fill the disk; what an interrupted stage left counts as written."""
    temporary = Path(tempfile.gettempdir())  # where training by blocks keeps its vectors
    same = temporary.stat().st_dev == existing(folder).stat().st_dev
    kept = ("vectors", "entering") if same else ()
    wanted = sum(lasting(need, kept) for need in needs.values())
    there = sum(f.stat().st_size for f in (folder / "private").rglob("*") if f.is_file())
    missing = wanted - there - machine.disk
    if missing > 0:
        raise DiskFull(
            f"the run needs about {wanted / 1e9:.1f} GB of disk in {folder}, but only "
            f"{machine.disk / 1e9:.1f} GB are free: {missing / 1e9:.1f} GB are missing; free some "
            "space, or choose another folder with --out"
        )


def short_of(
    needs: Mapping[str, Need], free: float, others: Sequence[Way], *, card: bool
) -> str | None:
    """One line about the stage that needs most memory, if that is more than there is.

    Args:
        needs: what the stages need, by name.
        free: bytes of the machine's memory, or of its GPU's.
        others: other ways of unlearning, of which one that fits is named.
        card: whether it is the GPU's memory.
    """

    def peak(need: Need) -> float:
        return need.on_card + CONTEXT if card else need.peak

    most = max(needs, key=lambda name: peak(needs[name]), default=None)
    if most is None or _MARGIN * peak(needs[most]) <= free:
        return None
    what = "GPU memory" if card else "memory"
    said = f"the stage {most} needs about {peak(needs[most]) / 1e9:.1f} GB of {what}, but only "
    said += f"{free / 1e9:.1f} GB are free"
    if most != "unlearn":
        return f"{said}; a smaller batch needs less: see wagle plan"
    fitting = [way for way in others if peak(way.need) <= free]
    if not fitting:
        return f"{said}, and no other way fits: see wagle plan"
    best = max(fitting, key=lambda way: (way.name == "whole", way.ratio or 0.0))
    return f"{said}; {_how_to(best)} needs {peak(best.need) / 1e9:.1f} GB"


def _how_to(way: Way) -> str:
    """The settings of a way."""
    if way.name == "whole":
        return f"attribution.ratio={way.ratio:g}"
    if way.name == "stream":
        return f"unlearning.engine=stream with attribution.ratio={way.ratio:g}"
    return "unlearning.lora={}" if way.name == "lora" else "unlearning.lora={quantize: nf4}"
