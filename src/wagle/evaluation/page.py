"""The page docs/benchmark-settings.md: every benchmark, made from its docstring."""

from __future__ import annotations

from wagle.evaluation.table import BENCHMARKS
from wagle.system.docstrings import settings_table, told


def benchmarks_page() -> str:
    """Every benchmark with its settings, as Markdown."""
    lines = [
        "# Settings of the benchmarks",
        "",
        "Made from `wagle.evaluation.benchmarks` by `make pages`. What each "
        "of them asks, and its figures: [evaluation.md](evaluation.md#the-benchmarks).",
    ]
    for name, benchmark in BENCHMARKS.items():
        lines += ["", f"## {name}", "", told(benchmark).summary, ""]
        rows = settings_table(benchmark, hidden=("encoder", "seed"))
        lines += [row.replace("None: ", "null: ") for row in rows]  # as a recipe writes it
    return "\n".join(lines) + "\n"
