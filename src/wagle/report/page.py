"""What a report shows, and the one page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wagle.evaluation.result import Evaluation
from wagle.files import write_text
from wagle.recipe import Recipe


@dataclass(frozen=True)
class Page:
    """All that a report shows, as plain data: nothing here reads a run folder.

    Attributes:
        recipe: what was asked.
        recipe_text: the resolved recipe as YAML.
        state: per finished stage, its seconds, peak memory and results.
        evaluations: by role: ``before``, ``after``, ``reference`` (the last may be missing).
        history: the figures of every unlearning step.
        teaching: the figures of every teaching step, if the model was taught here.
        warnings: what the run warned about.
        density: per ``block`` and per ``kind`` of module, (selected, weights).
        answers: by role, question/expected/said of some forget records; empty unless asked for.
        environment: versions and machine.
    """

    recipe: Recipe
    recipe_text: str
    state: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Evaluation]
    history: list[dict[str, Any]]
    teaching: list[dict[str, Any]]
    warnings: list[str]
    density: Mapping[str, Mapping[str, tuple[int, int]]]
    answers: Mapping[str, list[dict[str, Any]]]
    environment: Mapping[str, Any]


def write_report(page: Page, path: Path) -> None:
    """Write the page as one HTML file that opens without network."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML; every text from a model or a record is escaped."""
    raise NotImplementedError
