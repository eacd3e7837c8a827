"""Whether the model knew the forget set before unlearning: if it never did, the run stops there.

Nothing is decided without need: a probe of the stage ``before`` that finds more in the model than
in the reference settles it. Otherwise, or without a reference, the records are set against invented
twins, as ``wagle check`` does.
"""

from __future__ import annotations

import logging

from wagle.evaluation.knowing.checking import word_about
from wagle.evaluation.knowing.deciding import KNOWS, UNKNOWN
from wagle.evaluation.models import Way
from wagle.evaluation.result import Evaluation
from wagle.evaluation.stand_in import TWINS
from wagle.evaluation.verdict import MEMBERSHIP, probes_of
from wagle.run.opening import Run

logger = logging.getLogger(__name__)

_ADVICE = (
    "There is nothing to unlearn, so the run stopped here; set unlearning.when_unknown: go to "
    "unlearn all the same."
)


def never_known(run: Run) -> list[str]:
    """The sentences that say why there is nothing to unlearn; empty if there is, or may be.

    Args:
        run: a run that has the evaluations ``before`` and, if it has a reference, ``reference``.
    """
    settings = run.recipe.unlearning
    if settings.when_unknown == "go" or settings.objective == "none":
        return []
    labels = [None, *(benchmark.called for benchmark in run.recipe.evaluation.benchmarks)]
    compared = [(run.evaluation("before", one), run.evaluation("reference", one)) for one in labels]
    pairs = [
        (own, other)
        for own, other in compared
        if own is not None and other is not None and not _of_twins(other)
    ]
    if any(_finds_more(own, other) for own, other in pairs):
        return []
    word = _word(run)
    if word == KNOWS or (word != UNKNOWN and not pairs):
        return []
    found = []
    if pairs:
        found.append("No probe finds more of the forget set in the model than in the reference.")
    if word == UNKNOWN:
        found.append("The model finds these records no likelier than invented ones of their form.")
    logger.warning("the model does not know the forget set: %s", " ".join([*found, _ADVICE]))
    return [*found, _ADVICE]


def _of_twins(reference: Evaluation) -> bool:
    """Whether a reference is a stand-in that was asked of the model itself."""
    return bool(reference.details.get("model", {}).get("of") == TWINS)


def _finds_more(own: Evaluation, reference: Evaluation) -> bool:
    """Whether a probe finds more in a model than in the reference, so that it can be told apart."""
    for name, metric in probes_of(own):
        then = own.figures.get(name, {}).get(metric)
        goal = reference.figures.get(name, {}).get(metric)
        if then is None or then.value is None:
            continue
        if (name, metric) == MEMBERSHIP:  # compared with the reference already, which is 0
            if then.interval is not None and then.high < 0:
                return True
        elif goal is not None and goal.value is not None and then.number > goal.high:
            return True
    return False


def _word(run: Run) -> str:
    """What the model knows about the forget set, next to invented twins."""
    settings = run.recipe.evaluation
    way = Way(
        run.inputs.encoder,
        settings.precision,
        settings.batch_tokens,
        run.private / "answers",
        settings.engine,
    )
    model = run.models.to_ask(run.models.base)
    return word_about(model, way, run.inputs.need("forget"), seed=run.recipe.seed)
