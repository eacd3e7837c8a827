"""Quantities: what a pass over records can measure for every weight.

A quantity is a number per weight, with a name by which a score asks for it. To add one, write an
entry here, its name in ``Quantity`` of ``wagle.recipe.values`` (a test compares them), its sum in
``gradients.passes`` if it is a new kind, and a test next to the others.
"""

from __future__ import annotations

from typing import NamedTuple


class Origin(NamedTuple):
    """Where a quantity comes from.

    Attributes:
        set: the set of records: ``forget``, ``retain``, or ``refusal`` (the forget questions
            answered by refusals).
        kind: ``mean`` (of gradients), ``square`` (mean of the squared gradients of groups) or
            ``inputs`` (mean over records of squared layer inputs, summed over tokens).
        group: how many records each squared gradient covers, in record order.
    """

    set: str
    kind: str
    group: int = 0


COLLECTED: dict[str, Origin] = {
    "grad_forget": Origin("forget", "mean"),
    "grad_retain": Origin("retain", "mean"),
    "grad_refusal": Origin("refusal", "mean"),
    "square_retain": Origin("retain", "square", 1),
    "fisher_retain": Origin("retain", "square", 4),
    "input_square": Origin("forget", "inputs"),
}
