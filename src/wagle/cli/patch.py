"""The commands ``wagle patch ...``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

patch_app = typer.Typer(
    no_args_is_help=True,
    help="Make, apply, verify and undo patches: new values of changed weights.",
)


@patch_app.command(name="extract")
def patch_extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model folder before.")],
    result: Annotated[str, typer.Argument(metavar="RESULT", help="The model folder after.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The patch file to write.")],
    undo: Annotated[
        Optional[str],
        typer.Option("--undo", help="Also write the old values to this file, and keep it private."),
    ] = None,
) -> None:
    """Write the new values of all weights that differ between two model folders.

    Reads both folders; writes one file, and with --undo a second, private one.

    Example:  wagle patch extract base/ model/ -o patch.safetensors
    """
    from wagle.model.loading import resolve_model
    from wagle.patch.extraction import extract

    made = extract(resolve_model(base), resolve_model(result), out, undo=undo)
    print(
        f"{out}: {made.changed:,} changed weights, base {made.base[:12]}, result {made.result[:12]}"
    )


@patch_app.command(name="apply")
def patch_apply(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The model folder that the patch was made for.")
    ],
    patches: Annotated[
        list[str],
        typer.Argument(metavar="PATCH...", help="The patch file, or several in order."),
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="The model folder to write.")],
) -> None:
    """Apply one patch or several in order to a base, and write the resulting model, bit for bit.

    Reads the base folder and the patches; writes a model folder. Several patches must each be made
    on the previous result, or all on this base; in the latter case later ones win where they
    overlap.

    Example:  wagle patch apply base/ patch.safetensors -o unlearned/
    """
    from wagle.model.loading import resolve_model
    from wagle.patch.application import apply
    from wagle.report.text.patch import applied_table

    applied = apply(resolve_model(base), patches, out)
    print(out)
    print(applied_table(applied, patches))


@patch_app.command(name="verify")
def patch_verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model folder before.")],
    result: Annotated[str, typer.Argument(metavar="RESULT", help="The model folder after.")],
    mask: Annotated[
        Optional[str], typer.Option("--mask", help="Check that nothing outside this mask differs.")
    ] = None,
    patch: Annotated[
        Optional[list[str]],
        typer.Option(
            "--patch", help="Check that this patch turns base into result; repeatable, in order."
        ),
    ] = None,
) -> None:
    """Prove from the files what changed: everything that a mask leaves out is bit-identical.

    Reads the folders, the mask and the patches; writes nothing. Exit code 1 if the proof fails.

    Example:  wagle patch verify base/ model/ --mask mask.safetensors --patch patch.safetensors
    """
    from wagle.model.loading import resolve_model
    from wagle.patch.verification import verify
    from wagle.report.text.patch import verification_table

    checked = verify(resolve_model(base), resolve_model(result), mask=mask, patch=patch)
    print(verification_table(checked))
    if not checked.ok:
        raise typer.Exit(1)


@patch_app.command(name="undo")
def patch_undo(
    result: Annotated[
        str, typer.Argument(metavar="RESULT", help="The model folder that the patch made.")
    ],
    undo_file: Annotated[
        str, typer.Argument(metavar="UNDO", help="The undo file that patch extract --undo wrote.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="The model folder to write.")],
) -> None:
    """Restore the base, bit for bit, from the result and the private undo file.

    Reads the result folder and the undo file; writes a model folder.

    Example:  wagle patch undo model/ private/undo.safetensors -o restored/
    """
    from wagle.model.loading import resolve_model
    from wagle.patch.application import undo

    undo(resolve_model(result), undo_file, out)
    print(out)
