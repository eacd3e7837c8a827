"""The command ``wagle plan``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wagle.cli.options import AsJson, Out, Overrides, Source

Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="Time one whole block of the model at the recipe's batch, and the disk for longer.",
    ),
]


def plan_command(
    source: Source,
    overrides: Overrides = None,
    out: Out = None,
    measure: Measure = False,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe will need before anything is loaded: memory, disk and time of every stage.

    Reads the recipe, its records and the model's config.json; a folder without weights is enough.
    Writes nothing. Then a table of all ways to unlearn (whole, stream, LoRA, QLoRA at several ratios),
    what fits this machine and cards of 8, 24 and 80 GB, and the largest ratio that fits here.

    Example:  wagle plan demo attribution.ratio=0.05
    """
    from wagle.run.finding import find_run

    recipe, folder = find_run(source, list(overrides or []), out)
    from wagle.run.planning.plan import make_plan
    from wagle.run.planning.table import plan_table

    found = make_plan(recipe, folder, measure=measure)
    print(json.dumps(found, indent=2) if as_json else plan_table(found))
