"""Extract a patch: it holds only the new values of changed weights and cannot restore its base.

A patch hides the old values. No value of the base is in the file, so a patch alone yields neither
model, and ``apply`` works in one direction only.

It does not hide the result from anyone who also holds the base; nor which weights changed, so it
points at where the old values were; nor the new values themselves, which may say something about
what was there. A patch covers weights only: configuration and tokenizer are those of the base.

The undo file is the reverse, and private: it holds the old values and is written only on request.

Everything here works on model folders and compares stored bits. In memory are a part of one tensor,
and the bits that say where that tensor changed (twice an eighth of a byte per weight); what the patch
will hold waits in a file without a name. Both folders are read twice: to compare them, and for
their fingerprints. The file is described in ``wagle.patch.file``, the encoding of positions in
``wagle.patch.positions``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.model.weights import StoredTensor, fingerprint
from wagle.patch.file import FEW, UNDO, Change, Digests, Patch
from wagle.patch.folders import (
    TensorDigest,
    in_step,
    kind_of,
    pairs,
    same_layout,
    tensor_digest,
    unequal,
)
from wagle.patch.positions import Positions, encode
from wagle.system.errors import WagleError
from wagle.system.files.atomic import disk_errors
from wagle.system.files.tensors import InParts
from wagle.system.memory import Spill


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
    with disk_errors(Path(out), others=False):
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
    new: dict[str, Tensor | InParts]
    old: dict[str, Tensor | InParts]
    digests: Digests
    result_digests: dict[str, str]


class _Pieces:
    """A flat tensor whose parts come one by one, and wait in a file."""

    def __init__(self, spill: Spill, dtype: torch.dtype) -> None:
        self._spill, self.dtype = spill, dtype
        self._keys: list[Hashable] = []
        self._count = 0

    @property
    def shape(self) -> tuple[int]:
        return (self._count,)

    def add(self, part: Tensor) -> None:
        key = len(self._spill)
        self._spill[key] = part
        self._keys.append(key)
        self._count += len(part)

    def parts(self) -> Iterator[Tensor]:
        return (self._spill[key] for key in self._keys)


def _gather(base: str | Path, result: str | Path, place: Path, *, undo: bool) -> _Gathered:
    """Compare two folders of one layout; old values and their digests only if ``undo`` is set.

    Args:
        base: the model before.
        result: the model after.
        place: a folder for the values until they are written; no file stays there.
        undo: whether old values are wanted too.
    """
    place.mkdir(parents=True, exist_ok=True)
    made = _Gathered({}, {}, {}, Digests({}, {}), {})
    spill = Spill(0, place)  # kept in memory, the pieces would scatter what is freed between them
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for name, old, new in pairs(base, result):
        seen, values = TensorDigest(name, old.shape), _Pieces(spill, new.dtype)
        old_values = _Pieces(spill, old.dtype) if undo else None
        flags = _flags(old, new, seen, values, old_values)
        positions = encode(flags, math.prod(new.shape))
        few = 0 < positions.count < FEW
        result_digest = tensor_digest(name, new) if few or undo else ""
        (after if few else before)[name] = result_digest if few else seen.short()
        if undo:
            made.result_digests[name] = result_digest
        if positions.count:
            kind = kind_of(new)
            made.changes[name] = Change(kind.shape, kind.dtype, positions.encoding, positions.count)
            for contents, found in ((made.new, values), (made.old, old_values)):
                if found is not None:
                    contents |= _entries(name, found, positions, spill)
    return made._replace(digests=Digests(before, after))


def _flags(
    old: StoredTensor,
    new: StoredTensor,
    seen: TensorDigest,
    values: _Pieces,
    old_values: _Pieces | None,
) -> Iterator[NDArray[np.bool_]]:
    """Where two tensors differ, part by part; meanwhile the old one is digested, values are kept."""
    for _, before, after in in_step(old, new):
        found = unequal(before, after)
        seen.add(before)
        where = torch.from_numpy(np.flatnonzero(found))
        if len(where):
            values.add(after[where])
            if old_values is not None:
                old_values.add(before[where])
        yield found


def _entries(
    name: str, values: _Pieces, positions: Positions, spill: Spill
) -> dict[str, Tensor | InParts]:
    """A tensor's values at the positions, and the positions, as the file holds them."""
    if positions.encoding == "all":
        return {f"{name}::values": values}
    code = _Pieces(spill, torch.uint8)
    code.add(torch.from_numpy(positions.code))
    return {f"{name}::values": values, f"{name}::{positions.encoding}": code}
