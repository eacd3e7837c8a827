"""The command ``wagle check-run``."""

from __future__ import annotations

from typing import Annotated

import typer


def check_run_command(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Check that every file of a run is what its stages wrote: all of them are hashed.

    Reads the run folder; writes nothing. Prints a line per file that differs. Exit code 1 if one
    does, or if a stage is not sealed because an older wagle made it.

    Example:  wagle check-run runs/demo
    """
    from wagle.run.integrity.seals import inspect_run

    found = inspect_run(folder)
    for line in found.findings:
        print(line)
    gone = f"; deleted or private ones that are gone: {found.gone:,}" if found.gone else ""
    print(f"files as they were written: {found.files:,}; findings: {len(found.findings):,}{gone}")
    if found.findings:
        raise typer.Exit(1)
