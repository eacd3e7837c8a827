"""The patch: the new values of changed weights only; it needs its base, and cannot restore it.

What a patch hides: the old values. No value of the base is in the file, so a patch alone gives
neither model back, and ``apply`` works in one direction only.

What it does not hide: the result, from anyone who also holds the base; which weights changed, so
it points at where the old values were; and the new values themselves, which may say something
about what was there. A patch covers weights: configuration and tokenizer are those of the base.

The undo file is the reverse and private: it holds the old values, and is written only when asked.

Everything here works on model folders, holds one tensor at a time beside what a patch says of it,
and compares stored bits. The file is described in ``wagle.patch_file``, the code of positions in
``wagle.patch_positions``.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wagle.model.loading import load_model
from wagle.model.saving import copy_other_files
from wagle.model.structure import DTYPES
from wagle.model.weights import Weights, fingerprint, weight_files
from wagle.patch.file import FEW, UNDO, Change, Digests
from wagle.patch.file import FORMAT as FORMAT
from wagle.patch.file import UNDO_FORMAT as UNDO_FORMAT
from wagle.patch.file import Patch as Patch
from wagle.patch.folders import (
    differing,
    kind_of,
    layout,
    pairs,
    same_layout,
    stored_bits,
    tensor_digest,
)
from wagle.patch.positions import Positions, decode, encode
from wagle.patch.stack import Named, Shared, load_named, load_stack, misfit, promised, stack_problem
from wagle.patch.stack import overlaps as overlaps
from wagle.patch.verification import Verification as Verification
from wagle.patch.verification import verify as verify
from wagle.system.atomic import atomic_folder
from wagle.system.errors import WagleError, choose
from wagle.system.memory import Spill
from wagle.system.tensors import TensorFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
_IN_MEMORY = 1 << 28  # bytes of values that are gathered, before they go to a file


# ---------------------------------------------------------------------------------------------
# Extract


def extract(
    base: str | Path, result: str | Path, out: str | Path, *, undo: str | Path | None = None
) -> Patch:
    """Write the patch that turns the model folder ``base`` into the model folder ``result``.

    Args:
        base: the model that whoever applies the patch will hold.
        result: the same model with other weights: equal tensor names, shapes and types.
        out: the file to write; not in a model folder, where it would count as weights.
        undo: where to write the old values of the same weights too, mode 0600; None: nowhere.

    Returns:
        The patch. Two equal models have none: that is an error.
    """
    same_layout(base, result)
    _check_places((base, result), out, undo)
    made = _gather(base, result, Path(out).parent, undo=undo is not None)
    if not made.changes:
        raise WagleError(
            f"nothing changed between {base} and {result}: no weight differs in any bit; check that "
            "the second is the unlearned model"
        )
    ours, theirs = fingerprint(base), fingerprint(result)
    if undo is not None:  # first: a patch that is there has its undo file
        back = Digests(base=made.result_digests)
        Patch(theirs, ours, made.changes, made.old, back, UNDO).save(undo)
    patch = Patch(ours, theirs, made.changes, made.new, made.digests)
    patch.save(out)
    return patch


def _check_places(folders: Sequence[str | Path], out: str | Path, undo: str | Path | None) -> None:
    """Refuse to write where a patch would count as weights, or over itself."""
    files = [Path(file) for file in (out, undo) if file is not None]
    for file in files:
        if file.resolve().parent in {Path(folder).resolve() for folder in folders}:
            raise WagleError(
                f"{file} lies among the weights of a model; write it to another folder"
            )
    if len({file.resolve() for file in files}) < len(files):
        raise WagleError(f"{out} cannot be both patch and undo file; give them two names")


class _Gathered(NamedTuple):
    """What a patch and its undo file hold, by the names that it has in the file."""

    changes: dict[str, Change]
    new: Spill
    old: Spill
    digests: Digests
    result_digests: dict[str, str]


def _gather(base: str | Path, result: str | Path, place: Path, *, undo: bool) -> _Gathered:
    """Compare two folders of one layout; old values and their digests only for an undo file.

    Args:
        base: the model before.
        result: the model after.
        place: a folder for what does not fit into memory; no name in it is left.
        undo: whether old values are wanted too.
    """
    place.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Change] = {}
    values, old_values = Spill(_IN_MEMORY, place), Spill(_IN_MEMORY, place)
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    result_digests: dict[str, str] = {}
    for name, old, new in pairs(base, result):
        positions = encode(differing(old, new), new.numel())
        if 0 < positions.count < FEW:
            after[name] = tensor_digest(name, new)
        else:
            before[name] = tensor_digest(name, old)
        if undo:
            result_digests[name] = tensor_digest(name, new)
        if positions.count:
            kind = kind_of(new)
            changes[name] = Change(kind.shape, kind.dtype, positions.encoding, positions.count)
            values.update(_entries(name, new, positions))
            if undo:
                old_values.update(_entries(name, old, positions))
    return _Gathered(changes, values, old_values, Digests(before, after), result_digests)


def _entries(name: str, tensor: Tensor, positions: Positions) -> dict[Hashable, Tensor]:
    """A tensor's values at the positions, and the positions, as the file holds them."""
    if positions.encoding == "all":
        return {f"{name}::values": tensor.reshape(-1)}
    flat = stored_bits(tensor)
    values = [flat[torch.from_numpy(where)] for where in decode(positions, tensor.numel())]
    return {
        f"{name}::values": torch.cat(values).view(tensor.dtype),
        f"{name}::{positions.encoding}": torch.from_numpy(positions.code),
    }


# ---------------------------------------------------------------------------------------------
# Apply and undo


class Applied(NamedTuple):
    """What applying patches made.

    Attributes:
        fingerprint: of the model.
        promised: whether it is the one that the patches promise; of independent ones none does.
        overlaps: for every pair of patches, what both change.
    """

    fingerprint: str
    promised: bool
    overlaps: dict[tuple[int, int], Shared]


def apply(base: str | Path, patches: str | Path | Sequence[str | Path], out: str | Path) -> Applied:
    """Write the model folder that a patch, or several in order, make of a base.

    Shards and all other files are those of the base; one tensor is in memory at a time, beside
    its new values. The folder appears only when its weights have the fingerprint that the patches
    promise.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patches: the patch, or several: each made on the result of the one before, or all on this
            base; then the later one wins where two change the same weight, with a warning.
        out: the folder to make; one that holds anything is refused.
    """
    _check_free(out)
    stack = load_stack(patches)
    if not stack:
        raise WagleError(f"no patch was given for {base}; name at least one")
    ours = _check_fit(stack, base)
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
    """The model that patches make of a base, in memory; no folder is written.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patches: as ``apply`` takes them.
        dtype: of the weights, after patching in the precision in which they are stored.
        attention: ``eager``, ``sdpa`` or ``auto``.
    """
    stack = load_stack(patches)
    if not stack:
        raise WagleError(f"no patch was given for {base}; name at least one")
    ours = _check_fit(stack, base)
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
        raise WagleError(f"{stack[-1].name} does not make what it promises of {base}; make it anew")
    for parameter in model.parameters():  # the buffers stay as loaded
        parameter.data = parameter.data.to(choose(DTYPES, dtype, "dtype"))
    return model


def undo(result: str | Path, undo_file: str | Path, out: str | Path) -> None:
    """Write the base again, bit for bit, from the result and the undo file.

    Args:
        result: the model folder that the patch made; another one is refused.
        undo_file: what ``extract`` wrote as ``undo``.
        out: the folder to make; one that holds anything is refused.
    """
    _check_free(out)
    stack = [load_named(undo_file, UNDO)]
    _check_fit(stack, result)
    _write(result, stack, out, stack[0].patch.result)


def _check_free(out: str | Path) -> None:
    target = Path(out)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WagleError(f"{out} exists already and is not an empty folder; choose another one")


def _check_fit(stack: Sequence[Named], folder: str | Path) -> str:
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
    """Say where independent patches overlap: what they make together was never tried."""
    for (first, second), found in shared.items():
        if found.count:
            logger.warning(
                "%s and %s both change %s weights, %s of them to different values; there the later "
                "one wins: evaluate what they make together",
                stack[first].name,
                stack[second].name,
                f"{found.count:,}",
                f"{found.differing:,}",
            )


def _write(folder: str | Path, stack: Sequence[Named], out: str | Path, wanted: str | None) -> str:
    """Write what patches make of a folder; returns its fingerprint, which is ``wanted`` if given."""
    with atomic_folder(out) as part:
        copy_other_files(folder, part)
        for file in weight_files(folder):
            _write_shard(file, part / file.name, [named.patch for named in stack])
        made = fingerprint(part)
        if wanted is not None and made != wanted:
            raise WagleError(
                f"{stack[-1].name} made {made[:6]} of {folder} instead of {wanted[:6]}; nothing "
                "was kept: make it again"
            )
    return made


def _write_shard(source: Path, target: Path, patches: Sequence[Patch]) -> None:
    """Write one shard with the header of the old one, tensor by tensor as they lie in the file."""
    with (
        TensorFile(source, "weight file") as shard,
        source.open("rb") as old,
        target.open("wb") as new,
    ):
        names = sorted(shard.names, key=shard.offset)
        new.write(old.read(shard.offset(names[0]) if names else -1))
        for name in names:
            tensor = shard.read_all(name)
            for patch in patches:
                patch.put(name, tensor)
            new.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
