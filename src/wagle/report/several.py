"""Several finished runs side by side: their verdicts and figures, and where their recipes differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation, read_evaluation
from wagle.recipe.reading import load_recipe
from wagle.recipe.recipe import Recipe
from wagle.report.disclosure import last
from wagle.report.files import read_state
from wagle.report.leading import headlines
from wagle.system.errors import WagleError

_FREE = ("name", "report")  # settings without an effect on figures
_WAYS = ("evaluation.precision", "evaluation.max_new_tokens", "evaluation.records")
_ASKED = ("forget", "retain", "retain_heldout", "general", "holdout")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        name: the name of its folder.
        verdict: of its unlearned model; None if nothing was unlearned.
        figures: of the unlearned model, as SET.METRIC; those of a benchmark as LABEL/SET.METRIC.
        before: the same of the model before.
        selected: how many weights trained.
        patch_bytes: the size of its patch, if there is one.
        seconds: of all its stages.
        settings: its recipe in dotted keys.
    """

    name: str
    verdict: str | None
    figures: Mapping[str, Figure]
    before: Mapping[str, Figure]
    selected: int | None
    patch_bytes: int | None
    seconds: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Several:
    """Several runs.

    Attributes:
        rows: a row for each, in the order given.
        figures: the names of the figures to show, in order.
        differs: dotted settings that are not the same in all of them.
        notes: why figures of some runs cannot be compared, a sentence each.
    """

    rows: Sequence[Row]
    figures: Sequence[str]
    differs: Sequence[str]
    notes: Sequence[str] = field(default_factory=list)


def read_several(folders: Sequence[str | Path], everything: bool = False) -> Several:
    """Read finished runs to be compared.

    Args:
        folders: run folders; at least one.
        everything: show all figures that any of them has, not only the leading ones.

    Raises:
        WagleError: a folder is no run, or one whose model was not evaluated after unlearning.
    """
    homes = [Path(folder) for folder in folders]
    names = _names(homes)
    recipes = [_recipe(home) for home in homes]
    rows = [_row(*one) for one in zip(names, homes, recipes, strict=True)]
    every = list(dict.fromkeys(name for row in rows for name in row.figures))
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    differs = [key for key in keys if len({str(row.settings.get(key)) for row in rows}) > 1]
    shown = every if everything else _leading(every)
    return Several(rows, shown, differs, _notes(rows, shown, differs))


def _recipe(home: Path) -> Recipe:
    if not (home / "recipe.yaml").is_file():
        raise WagleError(f"{home} is no run; give run folders, such as runs/demo")
    return load_recipe(home / "recipe.yaml")


def _names(homes: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    paths = [home.resolve().parts for home in homes]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = next(home for home in homes if homes.count(home) > 1)
    raise WagleError(f"{twice} is given twice; give each run once")


def _row(name: str, home: Path, recipe: Recipe) -> Row:
    stages = read_state(home / "state.json")["stages"]
    if "after" not in stages:
        raise WagleError(f"{home} has not evaluated its model after unlearning; finish it first")
    unlearn, patch = stages.get("unlearn", {}), stages.get("patch", {})
    judged = "before" if "skipped" in unlearn else "after"
    return Row(
        name,
        stages["after"].get("verdict"),
        _figures(home, recipe, judged),
        _figures(home, recipe, "before"),
        unlearn.get("selected"),
        patch.get("bytes"),
        sum(stage.get("seconds", 0.0) for stage in stages.values()),
        dict(_dotted(recipe)),
    )


def _figures(home: Path, recipe: Recipe, role: str) -> dict[str, Figure]:
    """The figures of a model on the recipe's own sets and on its benchmarks."""
    labels = [one.called for one in recipe.evaluation.benchmarks]
    files = {"": f"{role}.json", **{f"{one}/": f"{role}-{one}.json" for one in labels}}
    found: dict[str, Figure] = {}
    for prefix, file in files.items():
        path = home / "evaluation" / file
        if path.is_file():
            asked: Evaluation = read_evaluation(path)
            for name, figures in asked.figures.items():
                found |= {f"{prefix}{name}.{metric}": f for metric, f in figures.items()}
    return found


def _leading(every: Sequence[str]) -> list[str]:
    """The leading figures, of the runs' own sets and then of every benchmark."""
    shown = []
    for prefix in dict.fromkeys(name.rpartition("/")[0] for name in every):
        own = [
            name.removeprefix(f"{prefix}/") for name in every if name.rpartition("/")[0] == prefix
        ]
        pairs = [(name.split(".", 1)[0], name.split(".", 1)[1]) for name in own]
        start = f"{prefix}/" if prefix else ""
        shown += [f"{start}{a}.{b}" for a, b in headlines(pairs, own_records=not prefix)]
    return shown


def _dotted(recipe: Recipe) -> list[tuple[str, Any]]:
    """The settings of a recipe by dotted key; paths as their last part."""

    def walk(prefix: str, value: Any) -> list[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            return [one for key, inner in value.items() for one in walk(f"{prefix}{key}.", inner)]
        text = last(value) if isinstance(value, str) and "/" in value else value
        return [(prefix.rstrip("."), text)]

    settings = {k: v for k, v in recipe.resolved().items() if k not in _FREE}
    return walk("", settings)


def _notes(rows: Sequence[Row], shown: Sequence[str], differs: Sequence[str]) -> list[str]:
    """What is not comparable: other records, or other ways of asking."""
    sets = {key.split(".")[0] for key in differs}
    notes = [
        f"Not comparable on {name}: the runs do not ask about the same records."
        for name in _ASKED
        if name in sets
    ]
    notes += [
        f"Asked in different ways: {key} is not the same in all runs."
        for key in _WAYS
        if key in differs
    ]
    counts = {n: {row.figures[n].n for row in rows if n in row.figures} for n in shown}
    uneven = [name for name, found in counts.items() if len(found) > 1]
    if uneven:
        notes.append(f"Over different numbers of records: {', '.join(uneven)}.")
    return notes
