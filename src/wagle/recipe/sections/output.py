"""The sections ``patch`` and ``report``: what a run leaves behind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wagle.recipe.sections.base import Section


class PatchSettings(Section):
    """The patch: the new values of the changed weights, without the rest of the model."""

    enabled: bool = True
    """Write patch.safetensors as well as the unlearned model."""

    undo: bool = False
    """Also write the old values to private/undo.safetensors; whoever has it can restore the
    base."""


class ReportSettings(Section):
    """What the report shows."""

    show_text: bool = False
    """Show the records' questions and answers; anyone who gets the report can then read them."""

    pairs: Annotated[int, Field(ge=0)] = 10
    """How many records show_text shows, before and after."""
