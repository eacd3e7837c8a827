"""Probes: is what a model does not say still written in its hidden states?

What is asked is in ``reading.py``, the classifier in ``classifier.py``, the figures in
``figures.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from wagle.attacks.kinds.probe.figures import read_states
from wagle.attacks.parts import ask_once, at_most, those_that_ask
from wagle.attacks.shapes import Scene, Trial
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.figures import HOLDOUT


def probe(
    scene: Scene,
    *,
    holdout: str | None = None,
    split: str | None = None,
    groups: dict[str, str] | None = None,
    readings: list[str] | None = None,
    limit: int = 200,
) -> Trial:
    """Try to read the forget set from the hidden states.

    Args:
        scene: its forget set is used.
        holdout: a file of records of the same kind that no model was trained on; null: the
            recipe's holdout set or, without one, the general set.
        split: the split of ``holdout``, if that is a folder.
        groups: maps a record's place (``forget[3]``, ``holdout[3]``; for the general set
            ``general[3]``) to its author or document, which is never on both sides of a fold; null:
            every record is its own group. They stay in the recipe; the attack's file and the report
            only say how many records they name. But with ``report.show_text`` the report shows the
            whole recipe, and ``wagle compare`` writes all settings of attacks into its
            ``plan.json``.
        readings: which of ``forget_or_holdout`` and ``choice``; null: both, the second if forget
            records have wrong answers.
        limit: the most records on each side.
    """
    forget = those_that_ask(scene.need("forget", "probe"), "probe")
    if holdout is None and HOLDOUT in scene.sets:
        others: Sequence[Record] = scene.sets[HOLDOUT]
    elif holdout is None:
        others = scene.need("general", "probe (or the setting holdout)")
    else:
        others = read_records(holdout, name="holdout", split=split, seed=scene.seed)
    task = read_states(
        scene.way.encoder,
        at_most(limit, forget, scene.seed),
        at_most(limit, those_that_ask(others, "probe"), scene.seed),
        groups=groups,
        readings=readings,
        seed=scene.seed,
    )
    return ask_once(scene, task)
