"""The commands ``wagle check`` and ``wagle retrain-adapter``."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer

from wagle.cli.options import AsJson, Precision

_EXITS = {"does not know": 0, "knows": 1, "base knows": 1, "cannot tell": 3}

Settings = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="[KEY=VALUE]...", help="How records are asked: model.template=plain"),
]
Teaching = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="How the adapter is trained, as in the section finetune, and how records are written: "
        "learning_rate=1e-4 model.template=plain",
    ),
]
Forget = Annotated[
    str, typer.Option("--forget", metavar="F", help="The records, written as in a recipe.")
]
Everything = Annotated[
    str,
    typer.Option("--records", help="Everything the adapter was taught, written as in a recipe."),
]
Seed = Annotated[int, typer.Option("--seed", help="The seed of all draws.")]


def check_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder or a run folder.")],
    settings: Settings = None,
    *,
    forget: Forget,
    base: Annotated[
        Optional[str], typer.Option("--base", help="The model that MODEL was trained from.")
    ] = None,
    adapter: Annotated[
        Optional[str],
        typer.Option(
            "--adapter",
            help="A PEFT adapter: of MODEL, which is then asked with it; or, with --base, one that "
            "MODEL has already.",
        ),
    ] = None,
    records: Annotated[
        Optional[str],
        typer.Option("--records", help="Everything the adapter was taught, for the estimate."),
    ] = None,
    twins: Annotated[int, typer.Option("--twins", help="Invented twins per record.")] = 4,
    precision: Precision = "float32",
    seed: Seed = 0,
    no_fail: Annotated[
        bool, typer.Option("--no-fail", help="Exit with 0 whatever the verdict is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell whether a model knows some records, and what the cheapest right way to forget them is.

    Reads the model and the records; writes nothing. Exit code 0 if it does not know them, 1 if it
    does, 3 if that cannot be told.

    Example:  wagle check my-model --forget customer.jsonl --base llama --adapter my-adapter
    """
    from wagle.report.text.knowledge import knowledge_table
    from wagle.run.single import check_model

    found = check_model(
        model,
        settings or [],
        forget=forget,
        base=base,
        adapter=adapter,
        records=records,
        twins=twins,
        precision=precision,
        seed=seed,
    )
    print(json.dumps(found.to_json(), indent=2) if as_json else knowledge_table(found))
    code = 0 if no_fail else _EXITS[found.verdict]
    if code:
        raise typer.Exit(code)


def retrain_command(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="The model folder that the adapter belongs to.")
    ],
    settings: Teaching = None,
    *,
    adapter: Annotated[
        str, typer.Option("--adapter", help="The adapter whose configuration the new one has.")
    ],
    records: Everything,
    forget: Forget,
    out: Annotated[str, typer.Option("-o", "--out", help="The adapter folder to write.")],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train an adapter again without some records: exact forgetting, if the base never knew them.

    Reads the base, the configuration of the old adapter and the records; writes a new adapter with
    retrained.json in it, and NEW-private with what a killed run resumes from and the key of the
    digests. Needs peft.

    Example:  wagle retrain-adapter llama --adapter old --records all.jsonl --forget customer.jsonl
    -o new
    """
    from wagle.run.single import retrain

    found = retrain(
        base, settings or [], adapter=adapter, records=records, forget=forget, out=out, seed=seed
    )
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        print(out)
        print(found.line())
