"""The command ``wagle import``, and the options of configs of other projects."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from wagle.run.importing.finding import Found

FOREIGN = {"ignore_unknown_options": True}  # --unlearn.lr 1e-5 and the like are read by the import

Corrected = Annotated[
    bool,
    typer.Option(
        "--corrected", help="With another project's config: leave out what imitates its defects."
    ),
]
ModelFolder = Annotated[
    Optional[str],
    typer.Option(
        "--model", help="With another project's config: the model folder; else WAGLE_MODEL."
    ),
]
DataFolder = Annotated[
    Optional[str],
    typer.Option(
        "--data", help="With another project's config: the folder of data sets; else WAGLE_DATA."
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", help="With another project's config: on how many GPUs it would run."
    ),
]


def import_command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [WORD]...",
            help="A config file with its overrides, or a whole command line.",
        ),
    ],
    out: Annotated[
        Optional[str], typer.Option("-o", "--out", help="The recipe to write; else it is printed.")
    ] = None,
    corrected: Corrected = False,
    model: ModelFolder = None,
    data: DataFolder = None,
    processes: Processes = 1,
) -> None:
    """Make a recipe of a config of the published WAGLE code, of SOUL or of OpenUnlearning.

    Reads the config; writes the recipe, and the mask file if the config names a published mask
    that is there. Says what the recipe imitates, what it does not, and what is missing.

    Example:  wagle import experiment=unlearn/tofu/default trainer=NPO task_name=b -o recipe.yaml
    """
    from wagle.run.importing.finding import Asked, find_import
    from wagle.run.importing.masks import make_mask
    from wagle.system.errors import WagleError
    from wagle.system.files.atomic import write_text

    found = find_import(words, Asked(corrected, model, data, processes))
    if found is None:
        raise WagleError(
            f"{words[0]} is no config of the published WAGLE code, of SOUL or of OpenUnlearning; "
            "give a JSON file with overall and unlearn, or experiment=unlearn/tofu/default and so on"
        )
    say(found)
    text = found.made.text()
    if found.made.mask is not None and not found.missing:
        make_mask(found.made.mask, found.recipe.model.path)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def say(found: Found) -> None:
    """Print the notes of an import, and what is missing, to stderr."""
    for line in found.made.lines():
        print(line, file=sys.stderr)
    for one in found.missing:
        said = f"missing: {one.path}; the published code fetches {one.fetched}: {one.remedy}"
        print(said, file=sys.stderr)
