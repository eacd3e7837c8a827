"""The stage ``neighbours``: make records to keep where the recipe gives none."""

from __future__ import annotations

import logging
from typing import Any

from wagle.evaluation.models import Way
from wagle.evaluation.neighbours import NEIGHBOURS, NEUTRAL, answer_prompts, as_row, make_prompts
from wagle.run.opening import Run
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json

logger = logging.getLogger(__name__)

_LONGEST = 64  # tokens of an answer, at most
_FEW = 8  # fewer neighbours than this are joined by neutral records


def neighbours(run: Run) -> dict[str, Any]:
    """Ask the model before unlearning for the answers that it should keep."""
    kind = run.inputs.made
    if kind is None:
        return {"made": 0}
    settings, forget, seed = run.recipe.evaluation, run.inputs.need("forget"), run.recipe.seed
    model = run.models.to_ask(run.models.base)
    way = Way(
        run.inputs.encoder, settings.precision, settings.batch_tokens, run.private / "answers"
    )
    most = min(settings.max_new_tokens, _LONGEST)
    prompts = make_prompts(forget, kind, seed)
    found = answer_prompts(prompts, forget, model, way, most)
    dropped = len(prompts) - len(found)
    if kind == NEIGHBOURS and len(found) < _FEW:
        logger.warning(
            "only %d of %d made neighbours keep what should go to themselves; neutral records "
            "join them",
            len(found),
            len(prompts),
        )
        found += answer_prompts(make_prompts([], NEUTRAL, seed), forget, model, way, most)
    if not found:
        raise WagleError("the model gives no usable answer to keep; give a retain set of your own")
    write_json(run.inputs.made_file, [as_row(record) for record in found], private=True)
    run.inputs.renew()
    return {"made": len(found), "kind": kind, "dropped": dropped}
