"""Extract a patch: it holds only the new values of changed weights and cannot restore its base.

A patch hides the old values. No value of the base is in the file, so a patch alone yields neither
model, and ``apply`` works in one direction only.

It does not hide the result from anyone who also holds the base; nor which weights changed, so it
points at where the old values were; nor the new values themselves, which may say something about
what was there. A patch covers weights only: configuration and tokenizer are those of the base.

The undo file is the reverse, and private: it holds the old values and is written only on request.

Everything here works on model folders, holds one tensor and its part of the patch at a time, and
compares stored bits. The file is described in ``wagle.patch.file``, the encoding of positions in
``wagle.patch.positions``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wagle.model.weights import fingerprint
from wagle.patch.file import FEW, UNDO, Change, Digests, Patch
from wagle.patch.folders import differing, kind_of, pairs, same_layout, stored_bits, tensor_digest
from wagle.patch.positions import Positions, decode, encode
from wagle.system.errors import WagleError
from wagle.system.memory import Spill

_IN_MEMORY = 1 << 28  # bytes of gathered values before they go to a file


def extract(
    base: str | Path, result: str | Path, out: str | Path, *, undo: str | Path | None = None
) -> Patch:
    """Write the patch that turns the model folder ``base`` into the model folder ``result``.

    Args:
        base: the model that those who apply the patch will hold.
        result: the same model with other weights: equal tensor names, shapes and types.
        out: the file to write; not in a model folder, where it would count as weights.
        undo: where to also write the old values of the same weights, mode 0600; None means nowhere.

    Returns:
        The patch. For two equal models there is none, which is an error.
    """
    same_layout(base, result)
    _check_places((base, result), out, undo)
    made = _gather(base, result, Path(out).parent, undo=undo is not None)
    if not made.changes:
        raise WagleError(
            f"nothing changed between {base} and {result}: every weight is bit-identical; check "
            "that the second is the unlearned model"
        )
    ours, theirs = fingerprint(base), fingerprint(result)
    if undo is not None:  # first, so that no patch exists without its undo file
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
                f"{file} would be among the weights of a model; write it to another folder"
            )
    if len({file.resolve() for file in files}) < len(files):
        raise WagleError(f"{out} cannot be both patch and undo file; give them different names")


class _Gathered(NamedTuple):
    """The contents of a patch and its undo file, by their names in the file."""

    changes: dict[str, Change]
    new: Spill
    old: Spill
    digests: Digests
    result_digests: dict[str, str]


def _gather(base: str | Path, result: str | Path, place: Path, *, undo: bool) -> _Gathered:
    """Compare two folders of one layout; old values and their digests only if ``undo`` is set.

    Args:
        base: the model before.
        result: the model after.
        place: a folder for what does not fit into memory; no file stays there.
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
