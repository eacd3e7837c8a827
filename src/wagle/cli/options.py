"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

Source = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A ready recipe (demo), a YAML file, or a run folder."),
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Settings over the recipe's: attribution.ratio=0.5"
    ),
]
Out = Annotated[Optional[str], typer.Option("--out", help="The run folder; default runs/NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
All = Annotated[bool, typer.Option("--all", help="Print all figures, not the headline alone.")]
