"""Arguments and options of the commands: their names and their help."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def _allow(yes: bool) -> bool:
    if yes:
        from wagle.system.plugins import allow_code

        allow_code()
    return yes


Source = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A ready recipe (demo), a YAML file, or a run folder."),
]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Override settings of the recipe: attribution.ratio=0.5"
    ),
]
Out = Annotated[Optional[str], typer.Option("--out", help="The run folder; default runs/NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
All = Annotated[bool, typer.Option("--all", help="Print all figures, not just the headline ones.")]
NoFail = Annotated[
    bool,
    typer.Option(
        "--no-fail",
        help="Exit with 0 whatever the verdict; else 1 for leaks, damaged or over-unlearned, 3 for "
        "inconclusive.",
    ),
]
Again = Annotated[
    Optional[str],
    typer.Option("--again", metavar="STAGE", help="Make this stage and all later ones again."),
]

AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Let code outside wagle run, named as module:function; allow_code: true in a recipe.",
        callback=_allow,
    ),
]

# for wagle evaluate
RecipeOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|MODEL",
        help="A recipe or a run folder; with --benchmark, a model folder, a run folder, or what is "
        "served: nf4:FOLDER, FOLDER+PATCH, FILE.gguf, http://host:port/v1#MODEL.",
    ),
]
RunOrResult = Annotated[
    Optional[str],
    typer.Option("--out", help="The run folder; with --benchmark, the result file."),
]
Benchmark = Annotated[
    Optional[str],
    typer.Option(
        "--benchmark",
        help="Ask a model this benchmark; KEY=VALUE are its settings, of qa your own records: "
        "forget=FILE.",
    ),
]
Before = Annotated[
    Optional[str],
    typer.Option(
        "--before",
        help="The model before unlearning: a model, a run, or a result file. With one there is a "
        "verdict.",
    ),
]
Reference = Annotated[
    Optional[str],
    typer.Option(
        "--reference",
        help="A model that never learned the forget set: a model, a run, or a result file.",
    ),
]
Patches = Annotated[
    Optional[list[str]],
    typer.Option("--patch", help="Apply this patch to the model first; repeatable."),
]
Tokenizer = Annotated[
    Optional[str],
    typer.Option(
        "--tokenizer",
        help="The tokenizer of the model, if it is not beside it: a folder. An endpoint needs it.",
    ),
]
Cache = Annotated[
    Optional[str],
    typer.Option("--cache", help="A private folder that keeps answers, to ask nothing twice."),
]
AskingEngine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="How models are asked: whole (in memory), stream (one block in memory), or auto.",
    ),
]
Precision = Annotated[
    str, typer.Option("--precision", help="Precision of matrix products: float32 or bfloat16.")
]

# for wagle compare
Arms = Annotated[
    str,
    typer.Option(
        "--arms",
        help="Choices of weights, separated by commas: scores, random_like and complement (of the "
        "first arm's mask), dense, lora. All are compared with random.",
    ),
]
Ratios = Annotated[
    Optional[str],
    typer.Option("--ratios", help="Mask ratios, separated by commas; default the recipe's."),
]
Units = Annotated[
    int, typer.Option("--units", help="How many models to teach; fewer than 5 is exploratory.")
]
Trials = Annotated[
    int, typer.Option("--trials", help="Learning rates to try for each arm, on unit 0.")
]
Steps = Annotated[
    Optional[int], typer.Option("--steps", help="Steps of every run; default the recipe's.")
]
KeepModels = Annotated[
    bool, typer.Option("--keep-models", help="Keep taught models, gradients and masks.")
]
ComparisonOut = Annotated[
    Optional[str], typer.Option("--out", help="The folder; default runs/NAME-compare.")
]
