"""The command line: parse, call one public function, print. No logic lives here.

Heavy imports are inside the commands, so that ``wagle --help`` is fast. Tables go to stdout, the
rest to stderr. What a user can mend is one line and exit code 2; anything else keeps its traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from wagle.errors import WagleError

if TYPE_CHECKING:
    from wagle.run_folder import Run

app = typer.Typer(
    name="wagle",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Make a language model forget: attribute, unlearn, prove what changed, report.",
)
mask_app = typer.Typer(
    no_args_is_help=True, help="Look at, compare and exchange masks: which weights may change."
)
patch_app = typer.Typer(
    no_args_is_help=True,
    help="Make, apply, verify and undo patches: new values of changed weights.",
)
app.add_typer(mask_app, name="mask")
app.add_typer(patch_app, name="patch")

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


def _execute(
    source: str, overrides: list[str] | None, out: str | None, until: str, redo: bool = False
) -> Run:
    from wagle.run import execute
    from wagle.run_folder import find_run

    recipe, folder = find_run(source, list(overrides or []), out)
    return execute(recipe, folder, until=until, redo=redo)


def _table(run: Run, as_json: bool, everything: bool) -> None:
    from wagle.report.table import summary_json, summary_table

    if as_json:
        print(json.dumps(summary_json(run.folder), indent=2))
    else:
        print(summary_table(run.folder, everything))


@app.command()
def run(
    source: Source,
    overrides: Overrides = None,
    out: Out = None,
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe; start again after an interruption and it goes on.

    Reads the recipe and its data; writes the run folder runs/NAME. A finished run prints its table
    again.

    Example:  wagle run demo unlearning.objective=grad_diff --out runs/graddiff
    """
    _table(_execute(source, overrides, out, "report"), as_json, everything)


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = None,
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole way on a real 135M chat model: teach two authors, make it forget them.

    The same as wagle run demo. Writes runs/demo.

    Example:  wagle demo
    """
    _table(_execute("demo", overrides, out, "report"), as_json, everything)


@app.command(name="finetune")
def finetune_command(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Teach a model the records that the recipe's finetune section names.

    Reads the recipe; writes base/ in the run folder.

    Example:  wagle finetune recipe.yaml finetune.epochs=8
    """
    print(_execute(source, overrides, out, "teach").base)


@app.command()
def attribute(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Take the gradients of a recipe's model and select its weights, up to the mask.

    Reads the recipe and its data; writes mask.safetensors and the gradient store. Where all weights
    train, as with LoRA, there is no mask, and it says so.

    Example:  wagle attribute recipe.yaml attribution.ratio=0.5
    """
    made = _execute(source, overrides, out, "mask")
    why = made.state["stages"]["mask"].get("skipped")
    print(made.folder / "mask.safetensors" if why is None else f"no mask: {why}")


@app.command(name="unlearn")
def unlearn_command(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Unlearn, after whatever comes before it and is not finished yet.

    Reads the recipe and its data; writes model/ in the run folder.

    Example:  wagle unlearn runs/demo
    """
    print(_execute(source, overrides, out, "unlearn").folder / "model")


@app.command(name="evaluate")
def evaluate_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL",
            help="A recipe or a run folder; with --benchmark a model folder or a run folder.",
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[
        Optional[str],
        typer.Option("--out", help="The run folder; with --benchmark the result file."),
    ] = None,
    benchmark: Annotated[
        Optional[str],
        typer.Option(
            "--benchmark",
            help="Ask a model this benchmark; KEY=VALUE are its settings, of qa your own records: "
            "forget=FILE.",
        ),
    ] = None,
    before: Annotated[
        Optional[str],
        typer.Option(
            "--before",
            help="The model before unlearning: a model, a run, or a result file. With one there is a "
            "verdict.",
        ),
    ] = None,
    reference: Annotated[
        Optional[str],
        typer.Option(
            "--reference",
            help="A model that never learned the forget set, a run, or a result file.",
        ),
    ] = None,
    patch: Annotated[
        Optional[list[str]],
        typer.Option("--patch", help="Evaluate what this patch makes of the model; repeatable."),
    ] = None,
    cache: Annotated[
        Optional[str],
        typer.Option("--cache", help="A private folder for answers: none is asked twice."),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="Of the matrix products: float32 or bfloat16.")
    ] = "float32",
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run before, after and against its reference; or one model with a benchmark.

    Reads the recipe and its data; writes evaluation/ and evaluation.json. With --benchmark it reads a
    model folder and writes only what --out names.

    Example:  wagle evaluate after --benchmark qa forget=forget.jsonl --before my-model --reference retrained
    """
    if benchmark is None:
        given = {
            "--before": before,
            "--reference": reference,
            "--patch": patch,
            "--cache": cache,
        }
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise WagleError(f"{wrong[0]} goes with --benchmark; a recipe names these itself")
        _table(_execute(source, overrides, out, "after"), as_json, everything)
        return
    from wagle.files import write_json
    from wagle.measuring import measure_model
    from wagle.report.evaluations import evaluation_table

    found = measure_model(
        source,
        overrides or [],
        benchmark=benchmark,
        before=before,
        reference=reference,
        patch=patch,
        cache=cache,
        precision=precision,
    )
    if out is not None:
        write_json(out, found.to_json())
    print(json.dumps(found.to_json(), indent=2) if as_json else evaluation_table(found, everything))


@app.command()
def report(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Write the report of a run again, after whatever is not finished yet.

    Reads the run folder; writes report.html.

    Example:  wagle report runs/demo
    """
    print(_execute(source, overrides, out, "report", redo=True).folder / "report.html")


@app.command(name="ledger")
def ledger_command(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A finished run folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model was asked to forget, when: a run and the runs that it came after.

    Reads ledger.json of the run; writes nothing. Exit code 1 if a request did not start from what
    the one before left.

    Example:  wagle ledger runs/second
    """
    from wagle.ledger import find_break, ledger_json, ledger_table, read_ledger

    found = read_ledger(folder, broken=True)
    print(json.dumps(ledger_json(found), indent=2) if as_json else ledger_table(found))
    if find_break(found) is not None:
        raise typer.Exit(1)


@app.command()
def compare(
    source: Source,
    overrides: Overrides = None,
    arms: Annotated[
        str,
        typer.Option(
            "--arms",
            help="Choices of weights, divided by commas: scores, random_like and complement (of the "
            "first one's mask), dense, lora. All are compared with random.",
        ),
    ] = "wagle,random,dense",
    ratios: Annotated[
        Optional[str],
        typer.Option("--ratios", help="Of the masks, divided by commas; default the recipe's."),
    ] = None,
    units: Annotated[
        int, typer.Option("--units", help="Times that all is taught anew; under 5 is exploratory.")
    ] = 5,
    trials: Annotated[
        int, typer.Option("--trials", help="Learning rates to try for every arm, on unit 0.")
    ] = 4,
    steps: Annotated[
        Optional[int], typer.Option("--steps", help="Of every run; default the recipe's.")
    ] = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep taught models, gradients and masks.")
    ] = False,
    out: Annotated[
        Optional[str], typer.Option("--out", help="The folder; default runs/NAME-compare.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does the mask help? Run one objective on several arms, over units that are taught anew.

    Reads the recipe and its data; writes comparison.json and comparison.html. The same command goes
    on after an interruption.

    Example:  wagle compare demo unlearning.objective=npo --arms wagle,random,dense --ratios 0.05,0.5
    """
    from wagle.report.comparison import arms_table
    from wagle.run_folder import find_run
    from wagle.search.compare import compare_arms

    found = compare_arms(
        find_run(source, list(overrides or []), None)[0],
        arms.split(","),
        out,
        ratios=ratios.split(",") if ratios else None,
        units=units,
        trials=trials,
        steps=steps,
        keep_models=keep_models,
    )
    print(json.dumps(found, indent=2) if as_json else arms_table(found))


At = Annotated[
    Optional[float], typer.Option("--at", metavar="RATIO", help="One ratio of a ladder.")
]


@mask_app.command()
def show(
    mask: Annotated[str, typer.Argument(metavar="MASK", help="A mask file.")],
    at: At = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also show where the scores of each block lie.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a mask selects: counts, score, density per block and per kind of module.

    Reads a mask file; writes nothing. A ladder has a column for each of its ratios.

    Example:  wagle mask show runs/demo/mask.safetensors --scores
    """
    from wagle.mask import Mask
    from wagle.report.table import mask_json, mask_table, scores_table

    found = Mask.load(mask) if at is None else Mask.load(mask).at(at)
    print(json.dumps(mask_json(found), indent=2) if as_json else mask_table(found))
    if scores and not as_json:  # the histogram is part of the JSON anyway
        print("\n" + scores_table(found))


@mask_app.command(name="compare")
def mask_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A mask file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same model.")],
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show how far two masks agree: overlap and Jaccard index, beside chance, per block.

    Reads two mask files of the same model; writes nothing. --at chooses the ratio of ladders.

    Example:  wagle mask compare runs/a/mask.safetensors runs/b/mask.safetensors
    """
    from wagle.mask import Mask
    from wagle.report.table import comparison_json, comparison_table

    masks = [Mask.load(path) for path in (a, b)]
    if at is not None:
        masks = [mask.at(at) if len(mask.ratios) > 1 else mask for mask in masks]
    found = masks[0].compare(masks[1])
    print(json.dumps(comparison_json(found), indent=2) if as_json else comparison_table(found))


@mask_app.command(name="import")
def mask_import(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A published mask, a .pt file.")],
    model: Annotated[str, typer.Option("--model", help="The model folder that it is for.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The mask file to write.")],
) -> None:
    """Turn a published .pt mask into a mask file, checked against its model.

    Reads the .pt file (tensors only, never code) and the model folder; writes one file.

    Example:  wagle mask import tofu_0.95.pt --model models/llama-2-7b -o mask.safetensors
    """
    from wagle.mask_exchange import import_mask
    from wagle.report.table import mask_table

    found = import_mask(file, model)
    found.save(out)
    print(mask_table(found))


@mask_app.command(name="export")
def mask_export(
    mask: Annotated[str, typer.Argument(metavar="MASK", help="A mask file.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The .pt file to write.")],
    at: At = None,
) -> None:
    """Write a mask as a .pt file of bool tensors by parameter name, as others publish them.

    Reads a mask file; writes one file.

    Example:  wagle mask export runs/demo/mask.safetensors -o mask.pt
    """
    from wagle.mask import Mask
    from wagle.mask_exchange import export_mask

    found = Mask.load(mask) if at is None else Mask.load(mask).at(at)
    export_mask(found, out)
    print(out)


@patch_app.command(name="extract")
def patch_extract(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model folder before.")],
    result: Annotated[str, typer.Argument(metavar="RESULT", help="The model folder after.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The patch file to write.")],
    undo: Annotated[
        Optional[str],
        typer.Option("--undo", help="Also write the old values here: keep this file to yourself."),
    ] = None,
) -> None:
    """Write the new values of all weights that differ between two model folders.

    Reads both folders; writes one file, and with --undo a private second one.

    Example:  wagle patch extract base/ model/ -o patch.safetensors
    """
    from wagle.patch import extract

    made = extract(base, result, out, undo=undo)
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
    """Write the model that a patch, or several in order, make of a base, bit for bit.

    Reads the base folder and the patches; writes a model folder. Several patches: each made on the
    result of the one before, or all on this base; then the later one wins where they overlap.

    Example:  wagle patch apply base/ patch.safetensors -o unlearned/
    """
    from wagle.patch import apply
    from wagle.report.table import applied_table

    applied = apply(base, patches, out)
    print(out)
    print(applied_table(applied, patches))


@patch_app.command(name="verify")
def patch_verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model folder before.")],
    result: Annotated[str, typer.Argument(metavar="RESULT", help="The model folder after.")],
    mask: Annotated[
        Optional[str], typer.Option("--mask", help="Nothing outside this mask may differ.")
    ] = None,
    patch: Annotated[
        Optional[list[str]],
        typer.Option(
            "--patch", help="Base and this patch must give the result; several in order, once each."
        ),
    ] = None,
) -> None:
    """Prove on files what changed: everything that a mask leaves out is bit-identical.

    Reads the folders, the mask and the patches; writes nothing. Exit code 1 if the proof fails.

    Example:  wagle patch verify base/ model/ --mask mask.safetensors --patch patch.safetensors
    """
    from wagle.patch import verify
    from wagle.report.table import verification_table

    checked = verify(base, result, mask=mask, patch=patch)
    print(verification_table(checked))
    if not checked.ok:
        raise typer.Exit(1)


@patch_app.command(name="undo")
def patch_undo(
    result: Annotated[
        str, typer.Argument(metavar="RESULT", help="The model folder that the patch made.")
    ],
    undo_file: Annotated[
        str, typer.Argument(metavar="UNDO", help="The undo file: patch extract --undo wrote it.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="The model folder to write.")],
) -> None:
    """Write the base again, bit for bit, from the result and the private undo file.

    Reads the result folder and the undo file; writes a model folder.

    Example:  wagle patch undo model/ private/undo.safetensors -o restored/
    """
    from wagle.patch import undo

    undo(result, undo_file, out)
    print(out)


def _set_up() -> None:
    """Output and environment of the process; importing wagle itself sets nothing."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: its threads spin otherwise
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars; wagle shows its own
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # they speak when they are imported, torch of what torchao does to it
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return prefix + record.getMessage()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _set_up()
    try:
        app(args=arguments, standalone_mode=True)
    except WagleError as error:
        print(f"wagle: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("wagle: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
