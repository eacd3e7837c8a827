"""The stage ``ledger``: enter the request and its outcome."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from wagle.run.ledger import Request, read_ledger, write_ledger
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask
from wagle.system.files.secrets import keyed_digest, salt


def ledger(run: Run) -> dict[str, Any]:
    recipe, stages = run.recipe, run.state["stages"]
    before, after = run.evaluation("before"), run.evaluation("after")
    assert before is not None
    assert after is not None
    forget = run.inputs.need("forget")
    mask = chosen_mask(run)
    promised = stages["patch"].get("result")
    own = Request(
        name=recipe.name,
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        wagle=version("wagle"),
        after=recipe.after,
        objective=stages["unlearn"]["objective"],
        training=recipe.unlearning.model_dump(mode="json"),
        mask=None
        if mask is None
        else {"digest": mask.digest(), "ratio": mask.ratio, "count": mask.count},
        forget={
            "n": len(forget),
            "digest": keyed_digest(salt(run.private), [r.id for r in forget]),
        },
        earlier=None
        if recipe.after is None
        else {"mode": recipe.unlearning.earlier, "n": len(run.inputs.forgotten)},
        base=before.details["model"]["fingerprint"],
        result=after.details["model"]["fingerprint"],
        patch=promised and {"file": "patch.safetensors", "result": promised},
        verdict=stages["after"]["verdict"],
    )
    past = [] if recipe.after is None else read_ledger(recipe.after)
    write_ledger(run.folder, [*past, own])
    return {"requests": len(past) + 1}
