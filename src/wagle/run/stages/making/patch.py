"""The stage ``patch``: write the new values of the changed weights, and verify them."""

from __future__ import annotations

from typing import Any

from wagle.patch.extraction import extract
from wagle.patch.verification import verify
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask


def patch(run: Run) -> dict[str, Any]:
    if not run.recipe.patch.enabled or run.state["stages"]["unlearn"]["changed"] == 0:
        return {"patch": None}  # the objective ``none`` changes nothing
    model, file = run.folder / "model", run.folder / "patch.safetensors"
    undo = run.private / "undo.safetensors" if run.recipe.patch.undo else None
    made = extract(run.models.base, model, file, undo=undo)
    # a mask on an adapter says nothing about the merged weights
    mask = chosen_mask(run) if run.recipe.unlearning.lora is None else None
    checked = verify(run.models.base, model, mask=mask, patch=file)
    if not checked.ok:
        raise RuntimeError(f"the patch does not match the run: {checked}; please report this bug")
    size = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    return {
        "result": made.result,
        "changed": checked.changed,
        "total": checked.total,
        "tensors": len(checked.tensors),
        "outside_mask": checked.outside_mask,
        "bytes": file.stat().st_size,
        "share_of_model": file.stat().st_size / size,
    }
