"""The commands ``wagle mask ...``."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer

from wagle.cli.options import AsJson

mask_app = typer.Typer(
    no_args_is_help=True, help="Show, compare and exchange masks: which weights may change."
)

At = Annotated[
    Optional[float], typer.Option("--at", metavar="RATIO", help="One ratio of a ladder.")
]


@mask_app.command()
def show(
    mask: Annotated[str, typer.Argument(metavar="MASK", help="A mask file.")],
    at: At = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also show the range of each block's scores.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a mask selects: counts, score, density per block and per kind of module.

    Reads a mask file; writes nothing. A ladder gets one column per ratio.

    Example:  wagle mask show runs/demo/mask.safetensors --scores
    """
    from wagle.mask.mask import Mask
    from wagle.report.text.mask import mask_json, mask_table, scores_table

    found = Mask.load(mask) if at is None else Mask.load(mask).at(at)
    print(json.dumps(mask_json(found), indent=2) if as_json else mask_table(found))
    if scores and not as_json:  # the histogram is part of the JSON anyway
        print("\n" + scores_table(found))


@mask_app.command(name="compare")
def mask_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A mask file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another mask for the same model.")],
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show how far two masks agree: overlap and Jaccard index per block, compared with chance.

    Reads two mask files for the same model; writes nothing. --at chooses the ratio if they are
    ladders.

    Example:  wagle mask compare runs/a/mask.safetensors runs/b/mask.safetensors
    """
    from wagle.mask.mask import Mask
    from wagle.report.text.mask import comparison_json, comparison_table

    masks = [Mask.load(path) for path in (a, b)]
    if at is not None:
        masks = [mask.at(at) if len(mask.ratios) > 1 else mask for mask in masks]
    found = masks[0].compare(masks[1])
    print(json.dumps(comparison_json(found), indent=2) if as_json else comparison_table(found))


@mask_app.command(name="import")
def mask_import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A published mask, a .pt file.")],
    model: Annotated[str, typer.Option("--model", help="The model folder that the mask is for.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The mask file to write.")],
) -> None:
    """Convert a published .pt mask to a mask file, and check it against its model.

    Reads the .pt file (tensors only, never code) and the model folder; writes one file.

    Example:  wagle mask import tofu_0.95.pt --model models/llama-2-7b -o mask.safetensors
    """
    from wagle.mask.exchange import import_mask
    from wagle.model.loading import resolve_model
    from wagle.report.text.mask import mask_table

    found = import_mask(file, resolve_model(model))
    found.save(out)
    print(mask_table(found))


@mask_app.command(name="export")
def mask_export(
    mask: Annotated[str, typer.Argument(metavar="MASK", help="A mask file.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The .pt file to write.")],
    at: At = None,
) -> None:
    """Write a mask as a .pt file of bool tensors by parameter name, the usual published form.

    Reads a mask file; writes one file.

    Example:  wagle mask export runs/demo/mask.safetensors -o mask.pt
    """
    from wagle.mask.exchange import export_mask
    from wagle.mask.mask import Mask

    found = Mask.load(mask) if at is None else Mask.load(mask).at(at)
    export_mask(found, out)
    print(out)
