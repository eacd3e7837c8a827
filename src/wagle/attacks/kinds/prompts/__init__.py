"""Prompts: does another way of asking bring back what the plain question no longer does?

The ways to ask are in ``means.py``; how they are asked and measured is in ``rephrasing.py``.
"""

from __future__ import annotations

from wagle.attacks.kinds.prompts.means import PREFIX
from wagle.attacks.kinds.prompts.rephrasing import PLAIN, ask_otherwise
from wagle.attacks.parts import ask_once, those_that_ask
from wagle.attacks.shapes import Scene, Trial


def prompts(
    scene: Scene,
    *,
    attacks: list[str] | None = None,
    prefix: str = PREFIX,
    neighbours: int = 3,
    system_prompt: str | None = None,
    max_new_tokens: int = 128,
) -> Trial:
    """Ask for the forget records in other ways.

    Args:
        scene: its forget set is used, and its retain set for the neighbours in the context.
        attacks: which of paraphrase, prefix, context, format, system, decomposed and translation;
            null: all that have the data they need.
        prefix: the first words of an answer, put into the model's mouth.
        neighbours: how many retain records to show in the context.
        system_prompt: the system prompt to ask under.
        max_new_tokens: the longest greedy answer.
    """
    task = ask_otherwise(
        scene.way.encoder,
        those_that_ask(scene.need("forget", "prompts"), "prompts", ("qa",)),
        retain=[record for record in scene.sets.get("retain", ()) if record.kind == "qa"],
        attacks=attacks,
        prefix=prefix,
        neighbours=neighbours,
        system_prompt=system_prompt,
        max_new_tokens=max_new_tokens,
        seed=scene.seed,
    )
    return ask_once(scene, task, start=PLAIN)
