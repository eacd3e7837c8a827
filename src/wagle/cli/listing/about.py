"""The commands about wagle itself: ``--version``, ``doctor``, ``schema`` and ``recipes``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import typer

from wagle.cli.options import AsJson
from wagle.system.errors import WagleError, choose

recipes_app = typer.Typer(help="List the ready recipes, or show one.", invoke_without_command=True)


def _tell(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"wagle {version('wagle')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Make a language model forget: attribute, unlearn, prove what changed, report."""


def schema_command() -> None:
    """Print the JSON schema of recipes, with which editors complete and check them.

    Reads nothing; writes to stdout. A recipe whose first lines have
    # yaml-language-server: $schema=recipe.schema.json uses the file beside it.

    Example:  wagle schema > recipe.schema.json
    """
    from importlib.resources import files

    print(files("wagle").joinpath("recipes", "recipe.schema.json").read_text("utf-8"), end="")


def doctor_command(as_json: AsJson = False) -> None:
    """Say what is installed and what the machine has: versions, devices, extras, disk, memory.

    Reads the installation; writes nothing. Exit code 1 if something keeps wagle from running.

    Example:  wagle doctor
    """
    from wagle.system.machine import describe

    found = describe()
    print(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
    if found["problems"]:
        raise typer.Exit(1)


def _lines(found: dict[str, Any]) -> list[str]:
    """The findings of the doctor as text."""
    lines = [f"{name:13} {version or 'missing'}" for name, version in found["versions"].items()]
    lines.append(f"{'CUDA':13} {found['cuda'] or 'none: torch was built for the CPU'}")
    for one in found["devices"]:
        memory = one.get("memory")
        more = f"{one.get('processors')} processors"
        if memory:
            more = f"{_gb(memory['free'])} of {_gb(memory['total'])} free, driver {one['driver']}"
        lines.append(f"{'device':13} {one['name']}: {more}")
    memory, disk = found["memory"], found["disk"]
    lines.append(f"{'memory':13} {_gb(memory['free'])} of {_gb(memory['total'])} free")
    lines.append(
        f"{'disk':13} {_gb(disk['here'])} free here, {_gb(disk['hub_cache'])} in the hub's cache"
    )
    for extra, missing in found["extras"].items():
        said = f"no {', '.join(missing)}: pip install 'wagle[{extra}]'" if missing else "installed"
        lines.append(f"{'extra':13} {extra}: {said}")
    return [*lines, *(f"{'problem':13} {line}" for line in found["problems"])]


def _gb(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.1f} GB"


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the ready recipes, each with what it does.

    Reads the package; writes nothing. wagle recipes show NAME prints one.

    Example:  wagle recipes
    """
    if context.invoked_subcommand is not None:
        return
    from wagle.recipe.reading import ready_texts

    texts = ready_texts()
    width = max(map(len, texts))
    for name, text in sorted(texts.items()):
        print(f"{name:{width}}  {text.partition(chr(10))[0].strip('# :')}")


@recipes_app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A ready recipe.")],
    out: Annotated[
        Optional[str], typer.Option("-o", "--out", help="The file to write; else it is printed.")
    ] = None,
) -> None:
    """Print a ready recipe as it is, or write it to a file of your own.

    Reads the package; writes the file that -o names.

    Example:  wagle recipes show tofu -o recipe.yaml
    """
    from pathlib import Path

    from wagle.recipe.reading import ready_texts
    from wagle.system.files.atomic import write_text

    text = choose(ready_texts(), name, "ready recipe")
    if out is None:
        print(text, end="")
        return
    if Path(out).exists():
        raise WagleError(f"{out} exists; choose another file")
    write_text(out, text)
