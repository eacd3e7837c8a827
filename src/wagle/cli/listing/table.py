"""The command ``wagle table``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from wagle.cli.options import All
from wagle.system.errors import WagleError

_FORMS = "Write this form to a file (- is stdout) instead of printing the table."

if TYPE_CHECKING:
    from wagle.report.several import Several


def table_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Finished run folders.")],
    everything: All = False,
    csv: Annotated[Optional[str], typer.Option("--csv", metavar="FILE", help=_FORMS)] = None,
    latex: Annotated[Optional[str], typer.Option("--latex", metavar="FILE", help=_FORMS)] = None,
    markdown: Annotated[
        Optional[str], typer.Option("--markdown", metavar="FILE", help=_FORMS)
    ] = None,
    as_json: Annotated[Optional[str], typer.Option("--json", metavar="FILE", help=_FORMS)] = None,
) -> None:
    """Put finished runs side by side: verdicts, figures with intervals, and settings that differ.

    Reads the run folders; writes nothing but the files asked for. What cannot be compared, because the runs ask about other records or in
    another way, is said under the table.

    Example:  wagle table runs/npo runs/simnpo --latex table.tex
    """
    from wagle.report.several import read_several
    from wagle.report.text import several

    found = read_several(runs, everything)
    forms: dict[str | None, Callable[[Several], str]] = {
        csv: several.several_csv,
        latex: several.several_latex,
        markdown: several.several_markdown,
        as_json: several.several_json,
    }
    wanted = {path: form for path, form in forms.items() if path is not None}
    if not wanted:
        print(several.several_table(found))
    for path, form in wanted.items():
        _write(path, form(found))


def _write(path: str, text: str) -> None:
    if path == "-":
        print(text)
        return
    from wagle.system.files.atomic import write_text

    if not Path(path).parent.is_dir():
        raise WagleError(f"the folder of {path} does not exist; make it first")
    write_text(Path(path), f"{text}\n")
