"""The command ``wagle list``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wagle.cli.options import AsJson


def list_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="objectives, retain_terms, scores, benchmarks, attacks or data.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List what a recipe may name, and where each comes from: wagle or an installed package.

    Reads what is installed; writes nothing.

    Example:  wagle list objectives
    """
    from wagle.run.tables import members

    rows = members(what)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    source = max((len(row["from"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['from']:{source}}  {row['about']}".rstrip())
