"""The command ``wagle compare``."""

from __future__ import annotations

import json

from wagle.cli.options import (
    Arms,
    AsJson,
    ComparisonOut,
    KeepModels,
    Overrides,
    Ratios,
    Source,
    Steps,
    Trials,
    Units,
)


def compare(
    source: Source,
    overrides: Overrides = None,
    arms: Arms = "wagle,random,dense",
    ratios: Ratios = None,
    units: Units = 5,
    trials: Trials = 4,
    steps: Steps = None,
    keep_models: KeepModels = False,
    out: ComparisonOut = None,
    as_json: AsJson = False,
) -> None:
    """Test whether the mask helps: run one objective on several arms, over freshly taught models.

    Reads the recipe and its data; writes comparison.json and comparison.html. After an
    interruption, the same command resumes.

    Example:  wagle compare demo unlearning.objective=npo --arms wagle,random,dense --ratios
    0.05,0.5
    """
    from wagle.run.finding import find_run

    recipe, _ = find_run(source, list(overrides or []), None)
    from wagle.comparison.compare import compare_arms
    from wagle.report.text.comparison import arms_table

    found = compare_arms(
        recipe,
        arms.split(","),
        out,
        ratios=ratios.split(",") if ratios else None,
        units=units,
        trials=trials,
        steps=steps,
        keep_models=keep_models,
    )
    print(json.dumps(found, indent=2) if as_json else arms_table(found))
