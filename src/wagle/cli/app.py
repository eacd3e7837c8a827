"""The command line: parse, call one public function, print. No logic lives here.

Heavy imports are inside the commands, so that ``wagle --help`` is fast. Tables go to stdout, the
rest to stderr. An error that the user can fix is one line and exit code 2; others keep a traceback.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from wagle.cli.check import check_command, retrain_command
from wagle.cli.compare import compare
from wagle.cli.evidence import add_evidence
from wagle.cli.importing import (
    FOREIGN,
    Corrected,
    DataFolder,
    ModelFolder,
    Processes,
    import_command,
)
from wagle.cli.listing.about import doctor_command, options, recipes_app, schema_command
from wagle.cli.listing.plugins import list_command
from wagle.cli.listing.table import table_command
from wagle.cli.mask import mask_app
from wagle.cli.options import (
    Again,
    All,
    AllowCode,
    AsJson,
    AskingEngine,
    Before,
    Benchmark,
    Cache,
    NoFail,
    Out,
    Overrides,
    Patches,
    Precision,
    RecipeOrModel,
    Reference,
    RunOrResult,
    Source,
    Tokenizer,
)
from wagle.cli.patch import patch_app
from wagle.cli.plan import plan_command
from wagle.cli.seals import check_run_command
from wagle.cli.starting import set_up
from wagle.system.errors import WagleError
from wagle.system.processes.leading import lead
from wagle.system.progress import exit_code_of

if TYPE_CHECKING:
    from wagle.run.importing.finding import Asked
    from wagle.run.opening import Run


app = typer.Typer(
    name="wagle",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.callback()(options)
app.add_typer(mask_app, name="mask")
app.add_typer(patch_app, name="patch")
app.add_typer(recipes_app, name="recipes")
app.command(name="doctor")(doctor_command)
app.command(name="schema")(schema_command)
app.command(name="check-run")(check_run_command)
app.command(name="check")(check_command)
app.command(name="plan")(plan_command)
app.command(name="list")(list_command)
app.command(name="table")(table_command)
app.command(name="import", context_settings=FOREIGN)(import_command)
app.command(name="retrain-adapter")(retrain_command)
app.command()(compare)
add_evidence(app)


def _execute(
    source: str,
    overrides: list[str] | None,
    out: str | None,
    until: str,
    redo: bool = False,
    again: str | None = None,
    asked: Asked | None = None,
) -> Run:
    from wagle.run.importing.finding import find_any

    recipe, folder, notes = find_any(source, list(overrides or []), out, asked)
    from wagle.run.execution import execute  # heavy: errors in the recipe are reported first

    return execute(recipe, folder, until=until, redo=redo, again=again, notes=notes)


def _table(run: Run, as_json: bool, everything: bool, no_fail: bool) -> None:
    from wagle.report.text.run import summary_table
    from wagle.report.verdict_json import run_json
    from wagle.run.integrity.roles import run_roles

    roles = run_roles(run, run.recipe)
    told = run_json(run.folder, roles) if as_json else None
    print(json.dumps(told, indent=2) if told else summary_table(run.folder, everything, roles))
    _end(run.state["stages"].get("after", {}).get("verdict"), no_fail)


def _end(verdict: str | None, no_fail: bool) -> None:
    """End with the exit code of the verdict."""
    from wagle.report.verdict_json import exit_code

    if not no_fail and (code := exit_code(verdict)):
        raise typer.Exit(code)


@app.command(context_settings=FOREIGN)
def run(
    source: Source,
    overrides: Overrides = None,
    out: Out = None,
    everything: All = False,
    as_json: AsJson = False,
    no_fail: NoFail = False,
    again: Again = None,
    _: AllowCode = False,
    corrected: Corrected = False,
    model: ModelFolder = None,
    data: DataFolder = None,
    processes: Processes = 1,
) -> None:
    """Run all stages of a recipe; after an interruption, the same command resumes the run.

    Reads the recipe and its data; writes the run folder runs/NAME. For a finished run, prints its
    table again. Takes configs of other projects, too, as wagle import does. Exit code 0 if the
    verdict is that no leak was found, 1 if it is leaks, damaged or over-unlearned, 3 if it is
    inconclusive; 2 is bad input.

    Example:  wagle run demo unlearning.objective=grad_diff --out runs/graddiff
    """
    from wagle.run.importing.finding import Asked

    asked = Asked(corrected, model, data, processes)
    made = _execute(source, overrides, out, "report", again=again, asked=asked)
    _table(made, as_json, everything, no_fail)


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = None,
    everything: All = False,
    as_json: AsJson = False,
    no_fail: NoFail = False,
) -> None:
    """Try everything on a real 135M chat model: teach it two authors, then make it forget them.

    The same as wagle run bundled:demo. Writes runs/demo.

    Example:  wagle demo
    """
    _table(_execute("bundled:demo", overrides, out, "report"), as_json, everything, no_fail)


@app.command(name="finetune")
def finetune_command(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Teach a model the records named in the recipe's finetune section.

    Reads the recipe; writes base/ in the run folder.

    Example:  wagle finetune recipe.yaml finetune.epochs=8
    """
    print(_execute(source, overrides, out, "teach").models.base)


@app.command(context_settings=FOREIGN)
def attribute(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Run a recipe up to the mask: take gradients, score the weights and select some of them.

    Reads the recipe and its data; writes mask.safetensors and the gradient store. If all weights
    train, as with LoRA, there is no mask, and the command says so.

    Example:  wagle attribute recipe.yaml attribution.ratio=0.5
    """
    made = _execute(source, overrides, out, "mask")
    why = made.state["stages"]["mask"].get("skipped")
    print(made.folder / "mask.safetensors" if why is None else f"no mask: {why}")


@app.command(name="unlearn", context_settings=FOREIGN)
def unlearn_command(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Run a recipe up to the unlearned model, starting with the first unfinished stage.

    Reads the recipe and its data; writes model/ in the run folder.

    Example:  wagle unlearn runs/demo
    """
    made = _execute(source, overrides, out, "unlearn")
    why = made.state["stages"].get("unlearn", {}).get("skipped")
    print(made.folder / "model" if why is None else f"no model: {why}")


@app.command(name="evaluate")
def evaluate_command(
    source: RecipeOrModel,
    overrides: Overrides = None,
    out: RunOrResult = None,
    benchmark: Benchmark = None,
    before: Before = None,
    reference: Reference = None,
    patch: Patches = None,
    tokenizer: Tokenizer = None,
    cache: Cache = None,
    precision: Precision = "float32",
    engine: AskingEngine = "auto",
    everything: All = False,
    as_json: AsJson = False,
    no_fail: NoFail = False,
    _: AllowCode = False,
) -> None:
    """Evaluate a run before, after and against its reference; or one model on a benchmark.

    Reads the recipe and its data; writes evaluation/ and evaluation.json. With --benchmark, reads a
    model folder and writes only the file that --out names. Exit codes are those of wagle run; 0
    without a verdict.

    Example:  wagle evaluate after --benchmark qa forget=forget.jsonl --before my-model --reference
    retrained
    """
    if benchmark is None:
        given = {
            "--before": before,
            "--reference": reference,
            "--patch": patch,
            "--tokenizer": tokenizer,
            "--cache": cache,
            "--engine": engine != "auto",
        }
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise WagleError(f"{wrong[0]} needs --benchmark; without it, set this in the recipe")
        _table(_execute(source, overrides, out, "after"), as_json, everything, no_fail)
        return
    from wagle.report.text.evaluations import evaluation_table
    from wagle.report.verdict_json import evaluation_json
    from wagle.run.single import measure_model
    from wagle.system.files.atomic import write_json

    found = measure_model(
        source,
        overrides or [],
        benchmark=benchmark,
        before=before,
        reference=reference,
        patch=patch,
        tokenizer=tokenizer,
        cache=cache,
        precision=precision,
        engine=engine,
    )
    told = evaluation_json(found)
    if out is not None:
        write_json(out, told)
    print(json.dumps(told, indent=2) if as_json else evaluation_table(found, everything))
    _end(told["verdict"], no_fail)


@app.command()
def report(source: Source, overrides: Overrides = None, out: Out = None) -> None:
    """Write a run's report again, finishing any unfinished stages first.

    Reads the run folder; writes report.html.

    Example:  wagle report runs/demo
    """
    print(_execute(source, overrides, out, "report", redo=True).folder / "report.html")


@app.command(name="ledger")
def ledger_command(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A finished run folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model was asked to forget, and when: this run and the runs before it.

    Reads the run's ledger.json; writes nothing. Exit code 1 if a request did not start from the
    model that the previous one left.

    Example:  wagle ledger runs/second
    """
    from wagle.run.ledger import find_break, ledger_json, ledger_table, read_ledger, read_receipts

    found, receipts = read_ledger(folder, broken=True), read_receipts(folder)
    told = [*ledger_json(found), *receipts]
    print(json.dumps(told, indent=2) if as_json else ledger_table(found, receipts))
    if find_break(found) is not None:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; if torchrun started several processes, the first one leads."""
    set_up()
    lead(partial(_run_command, arguments))


def _run_command(arguments: list[str] | None) -> None:
    try:
        app(args=arguments, standalone_mode=True)
    except WagleError as error:
        print(f"wagle: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:  # an exit: typer makes one of an interruption
        sys.exit(exit_code_of(end))
