"""Apply patches: base and patches give the result; result and undo file give the base back.

Folders in, a folder out, a part of a tensor at a time; ``load_patched`` builds the same model in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wagle.model.loading import load_model
from wagle.model.saving import copy_other_files
from wagle.model.structure import DTYPES
from wagle.model.weights import StoredTensor, Weights, fingerprint, weight_files
from wagle.patch.file import UNDO, Patch
from wagle.patch.folders import layout, parts_of
from wagle.patch.stack import (
    Named,
    Shared,
    load_named,
    load_stack,
    misfit,
    overlaps,
    promised,
    stack_problem,
)
from wagle.system.errors import WagleError, choose
from wagle.system.files.atomic import atomic_folder
from wagle.system.files.tensors import TensorFile, tensor_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


class Applied(NamedTuple):
    """The outcome of applying patches.

    Attributes:
        fingerprint: the fingerprint of the model.
        promised: whether it is the one that the patches promise; independent ones promise none.
        overlaps: for every pair of patches, what both change.
    """

    fingerprint: str
    promised: bool
    overlaps: dict[tuple[int, int], Shared]


def apply(base: str | Path, patches: str | Path | Sequence[str | Path], out: str | Path) -> Applied:
    """Write the model folder that results from applying a patch, or several in order, to a base.

    Shards and all other files are those of the base; only a part of one tensor and the positions of
    its changes are in memory at a time. The folder appears only if its weights have the fingerprint that the patches
    promise.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patches: the patch, or several: each made on the result of the one before, or all on this
            base; in that case the later one wins where two change the same weight, with a warning.
        out: the folder to make; one that is not empty is refused.
    """
    _check_free(out)
    stack = load_stack(patches)
    if not stack:
        raise WagleError(f"no patch was given for {base}; name at least one")
    ours = check_fit(stack, base)
    shared = overlaps([named.patch for named in stack])
    wanted = promised(stack, ours)
    if wanted is None:
        _warn(stack, shared)
    return Applied(_write(base, stack, out, wanted), wanted is not None, shared)


def load_patched(
    base: str | Path,
    patches: str | Path | Sequence[str | Path],
    dtype: str = "float32",
    attention: str = "auto",
) -> PreTrainedModel:
    """The model that patches turn a base into, in memory; no folder is written.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patches: as ``apply`` takes them.
        dtype: the dtype of the weights; they are patched in the precision in which they are stored.
        attention: ``eager``, ``sdpa`` or ``auto``.
    """
    stack = load_stack(patches)
    if not stack:
        raise WagleError(f"no patch was given for {base}; name at least one")
    ours = check_fit(stack, base)
    stored = str(Weights(base).dtype).removeprefix("torch.")
    model = load_model(base, stored, attention)
    state = model.state_dict()
    for named in stack:
        missing = [name for name in named.patch.tensors if name not in state]
        if missing:
            raise WagleError(
                f"{base} loads {missing[0]} under another name; apply {named.name} to a folder"
            )
        for name in named.patch.tensors:
            named.patch.put(name, state[name])
    wanted = promised(stack, ours)
    if wanted is not None and fingerprint(model) != wanted:
        raise WagleError(
            f"{stack[-1].name} does not turn {base} into the promised model; make it again"
        )
    for parameter in model.parameters():  # the buffers stay as loaded
        parameter.data = parameter.data.to(choose(DTYPES, dtype, "dtype"))
    return model


def undo(result: str | Path, undo_file: str | Path, out: str | Path) -> None:
    """Restore the base, bit for bit, from the result and the undo file.

    Args:
        result: the model folder that the patch made; another one is refused.
        undo_file: the file that ``extract`` wrote as ``undo``.
        out: the folder to make; one that holds anything is refused.
    """
    _check_free(out)
    stack = [load_named(undo_file, UNDO)]
    check_fit(stack, result)
    _write(result, stack, out, stack[0].patch.result)


def _check_free(out: str | Path) -> None:
    target = Path(out)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WagleError(f"{out} already exists and is not an empty folder; choose another one")


def check_fit(stack: Sequence[Named], folder: str | Path) -> str:
    """Refuse patches that do not belong on a folder; returns the folder's fingerprint."""
    ours = fingerprint(folder)
    problem = stack_problem(stack, folder, ours)
    if problem is not None:
        remedy = (
            "apply it to the model that it was made for"
            if len(stack) == 1
            else "each must be made on the result of the one before, or all on one base"
        )
        raise WagleError(f"{problem}; {remedy}")
    problem = misfit(stack, layout(folder), folder)
    if problem is not None:
        raise WagleError(f"{problem}; apply it to the model as it was saved")
    return ours


def _warn(stack: Sequence[Named], shared: Mapping[tuple[int, int], Shared]) -> None:
    """Warn where independent patches overlap: their combination was never tested."""
    for (first, second), found in shared.items():
        if found.count:
            logger.warning(
                "%s and %s both change %s weights, %s of them to different values; there the later "
                "one wins: evaluate the combined model",
                stack[first].name,
                stack[second].name,
                f"{found.count:,}",
                f"{found.differing:,}",
            )


def _write(folder: str | Path, stack: Sequence[Named], out: str | Path, wanted: str | None) -> str:
    """Apply patches to a folder; returns the result's fingerprint, which is ``wanted`` if given."""
    with atomic_folder(out) as part:
        copy_other_files(folder, part)
        for file in weight_files(folder):
            _write_shard(file, part / file.name, [named.patch for named in stack])
        made = fingerprint(part)
        if wanted is not None and made != wanted:
            raise WagleError(
                f"{stack[-1].name} turned {folder} into {made[:6]} instead of {wanted[:6]}; "
                "nothing was kept: make it again"
            )
    return made


def _write_shard(source: Path, target: Path, patches: Sequence[Patch]) -> None:
    """Write one shard with the header of the old one, part by part in file order."""
    with (
        TensorFile(source, "weight file") as shard,
        source.open("rb") as old,
        target.open("wb") as new,
    ):
        names = sorted(shard.names, key=shard.offset)
        new.write(old.read(shard.offset(names[0]) if names else -1))
        for name in names:
            cursors, start = [p.cursor(name) for p in patches if name in p.tensors], 0
            for part in parts_of(StoredTensor(shard, name)):
                for cursor in cursors:
                    cursor.put(part, start)
                new.write(tensor_bytes(part))
                start += len(part)
