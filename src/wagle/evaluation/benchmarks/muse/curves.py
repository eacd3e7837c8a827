"""C5 and C6: the utility of several evaluations of ``muse`` as a curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wagle.evaluation.figures import Figure, Measured
from wagle.metrics.statistics import same_records
from wagle.system.errors import WagleError


def scalability(evaluations: Mapping[int, Measured]) -> dict[int, Figure]:
    """C5: utility (C4) after unlearning 1, 2, 3, 4 folds of forget texts at once.

    Args:
        evaluations: ``muse``'s of the models, by the number of folds (``scal/forget_N``), each
            unlearned from the target model; 0 is the target model itself.

    Returns:
        The figures by number of folds, ascending; a flat curve is the goal.

    Raises:
        WagleError: there is no evaluation, or one lacks C4 or is over other questions.
    """
    return _curve(evaluations, "after {} folds of forget texts at once, from the target model")


def sustainability(evaluations: Mapping[int, Measured]) -> dict[int, Figure]:
    """C6: utility (C4) after 1, 2, 3, 4 requests in a row.

    Args:
        evaluations: ``muse``'s of the models, by the number of requests so far
            (``sust/forget_1`` to ``sust/forget_N``), each unlearned from the one before; 0 is the
            target model itself.

    Returns:
        The figures by number of requests, ascending; a flat curve is the goal.

    Raises:
        WagleError: there is no evaluation, or one lacks C4 or is over other questions.
    """
    return _curve(evaluations, "after {} requests in a row, each from the result before")


def _curve(evaluations: Mapping[int, Measured], note: str) -> dict[int, Figure]:
    if not evaluations:
        raise WagleError("a curve needs at least one evaluation")
    found: dict[int, Figure] = {}
    for fold in sorted(evaluations):
        figure = evaluations[fold].figures.get("retain", {}).get("knowmem")
        if figure is None:
            raise WagleError(f"evaluation {fold} has no retain.knowmem; evaluate the part knowmem")
        for other in list(found.values())[:1]:
            same_records(other.per_record, figure.per_record, f"a curve (evaluation {fold})")
        found[fold] = replace(figure, note=note.format(fold))
    return found
