"""Write every page that is made from the code: ``python -m bench.pages``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.architecture import architecture_page
from bench.faults.page import page as reliability_page
from bench.house.guide import guide_page
from bench.published import READY, imported, ready
from wagle.attacks.page import attacks_page
from wagle.attribution.scoring.page import scores_page
from wagle.evaluation.page import benchmarks_page
from wagle.recipe.page import settings_page
from wagle.recipe.published.page import other_projects_page
from wagle.recipe.schema import FILE, recipe_schema
from wagle.report.verdict_json import verdict_schema
from wagle.run.tables import setting_names
from wagle.unlearning.objectives.page import objectives_page

ROOT = Path(__file__).resolve().parent.parent


def _schema() -> str:
    return json.dumps(recipe_schema(setting_names()), indent=1, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "CONTRIBUTING.md": guide_page,
    "docs/architecture.md": architecture_page,
    "docs/attack-settings.md": attacks_page,
    "docs/benchmark-settings.md": benchmarks_page,
    "docs/from-other-projects.md": lambda: other_projects_page(imported()),
    "docs/objectives.md": objectives_page,
    "docs/recipe.md": lambda: settings_page(setting_names()),
    f"docs/{FILE}": _schema,
    "docs/reliability.md": lambda: reliability_page(
        json.loads((ROOT / "bench" / "measured" / "faults.json").read_text())
    ),
    "docs/scores.md": scores_page,
    "docs/verdict.schema.json": lambda: json.dumps(verdict_schema(), indent=2) + "\n",
    f"src/wagle/recipes/{FILE}": _schema,
    **{f"src/wagle/recipes/{name}.yaml": partial(ready, name) for name in READY},
}


def main() -> None:
    for path, page in PAGES.items():
        (ROOT / path).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
