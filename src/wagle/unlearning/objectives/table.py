"""All objectives by name: the tables at the end of each family's file, combined."""

from __future__ import annotations

from wagle.unlearning.objectives.activations import ACTIVATIONS
from wagle.unlearning.objectives.ascent import ASCENT
from wagle.unlearning.objectives.distributions import DISTRIBUTIONS
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.preference import PREFERENCE
from wagle.unlearning.objectives.relabel import RELABEL
from wagle.unlearning.objectives.retaining import RETAINING

FAMILIES = (ASCENT, PREFERENCE, RELABEL, DISTRIBUTIONS, ACTIVATIONS, RETAINING)
OBJECTIVES: dict[str, Objective] = dict(
    sorted(((n, e) for family in FAMILIES for n, e in family.items()), key=lambda item: item[0])
)
"""Every objective, in alphabetical order."""
