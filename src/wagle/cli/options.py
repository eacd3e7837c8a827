"""Arguments and options of the commands: what each is called and what its help says."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

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

# of wagle evaluate
RecipeOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|MODEL",
        help="A recipe or a run folder; with --benchmark a model folder or a run folder.",
    ),
]
RunOrResult = Annotated[
    Optional[str],
    typer.Option("--out", help="The run folder; with --benchmark the result file."),
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
        help="A model that never learned the forget set, a run, or a result file.",
    ),
]
Patches = Annotated[
    Optional[list[str]],
    typer.Option("--patch", help="Evaluate what this patch makes of the model; repeatable."),
]
Cache = Annotated[
    Optional[str],
    typer.Option("--cache", help="A private folder for answers: none is asked twice."),
]
Precision = Annotated[
    str, typer.Option("--precision", help="Of the matrix products: float32 or bfloat16.")
]

# of wagle compare
Arms = Annotated[
    str,
    typer.Option(
        "--arms",
        help="Choices of weights, divided by commas: scores, random_like and complement (of the "
        "first one's mask), dense, lora. All are compared with random.",
    ),
]
Ratios = Annotated[
    Optional[str],
    typer.Option("--ratios", help="Of the masks, divided by commas; default the recipe's."),
]
Units = Annotated[
    int, typer.Option("--units", help="Times that all is taught anew; under 5 is exploratory.")
]
Trials = Annotated[
    int, typer.Option("--trials", help="Learning rates to try for every arm, on unit 0.")
]
Steps = Annotated[
    Optional[int], typer.Option("--steps", help="Of every run; default the recipe's.")
]
KeepModels = Annotated[
    bool, typer.Option("--keep-models", help="Keep taught models, gradients and masks.")
]
ComparisonOut = Annotated[
    Optional[str], typer.Option("--out", help="The folder; default runs/NAME-compare.")
]
