"""The stage ``patch``: write the new values of the changed weights, and verify them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wagle.patch.extraction import extract
from wagle.patch.verification import Verification, verify
from wagle.run.integrity.seals import check_needed
from wagle.run.opening import Run
from wagle.run.selection import chosen_mask

_READ = ("teach", "mask", "unlearn")  # the stages whose files a patch is made of


def patch(run: Run) -> dict[str, Any]:
    if not run.recipe.patch.enabled or run.state["stages"]["unlearn"]["changed"] == 0:
        return {"patch": None}  # the objective ``none`` changes nothing
    model, file = run.folder / "model", run.folder / "patch.safetensors"
    undo = run.private / "undo.safetensors" if run.recipe.patch.undo else None
    try:
        made = extract(run.models.base, model, file, undo=undo)
        checked = _verified(run, model, file)
    except Exception:
        for written in (file, undo):
            if written is not None:
                written.unlink(missing_ok=True)
        raise
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


def _verified(run: Run, model: Path, file: Path) -> Verification:
    """The patch, checked against the models and the mask: both were hashed before, and are again."""
    # a mask on an adapter says nothing about the merged weights
    mask = chosen_mask(run) if run.recipe.unlearning.lora is None else None
    checked = verify(run.models.base, model, mask=mask, patch=file)
    if not checked.ok:
        check_needed(Run(run.folder, run.recipe), "patch", _READ)  # a file that changed is no bug
        raise RuntimeError(f"the patch does not match the run: {checked}; please report this bug")
    return checked
