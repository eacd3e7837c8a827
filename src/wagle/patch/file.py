"""The file format of patches and undo files: their contents, writing and reading.

One safetensors file, ``wagle-patch/2`` or ``wagle-undo/1``. Per changed tensor it holds
``NAME::values``, flat and in position order, and, unless the tensor changed everywhere, where
these values go, in the smallest of the codes of ``wagle.patch.positions``: ``NAME::gaps``,
``NAME::bits``, ``NAME::rice`` or ``NAME::rice_unchanged``, uint8. The metadata, JSON:

    base, result    fingerprints of the model that it applies to and of the model that it makes
    tensors         per changed tensor: shape, dtype, encoding, count
    digests         per tensor of the base, changed or not: 16 hex digits
    digests_after   the same for the result, for tensors in which only a few weights change

``digests`` shows which tensor of a wrong base differs. A tensor in which fewer than 256 weights
change has its digest in ``digests_after`` instead: with so few weights, anyone holding the result
could try old values until a digest of the old tensor matched. Version 1 has no digests and no Rice
codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.model.weights import StoredTensor, stored_tensors
from wagle.patch.cursor import Cursor
from wagle.patch.folders import Kind, dtype_name, kind_of, layout, parts_of, tensor_digest
from wagle.patch.positions import Positions, decode, sound
from wagle.system.errors import WagleError
from wagle.system.files.checked import open_checked, save_checked
from wagle.system.files.tensors import MOST_DIMENSIONS, InParts, TensorFile, flat_parts

FORMAT = "wagle-patch/2"
UNDO_FORMAT = "wagle-undo/1"
FEW = 256  # changed weights of a tensor: too many to try old values until a digest matches


class Form(NamedTuple):
    """A kind of file: its name, the name of the model it applies to, its format.

    A private one has mode 0600.
    """

    what: str
    base: str
    format: str
    private: bool


PATCH = Form("patch", "base", FORMAT, private=False)
UNDO = Form("undo file", "result", UNDO_FORMAT, private=True)


@dataclass(frozen=True)
class Change:
    """What a patch says about one changed tensor.

    Attributes:
        shape: the shape of the whole tensor.
        dtype: the dtype of the tensor and of its new values, as torch names it.
        encoding: how the positions are stored: ``all``, ``gaps``, ``bits``, ``rice`` or
            ``rice_unchanged``.
        count: how many of its weights changed.
    """

    shape: tuple[int, ...]
    dtype: str
    encoding: str
    count: int

    @property
    def size(self) -> int:
        """How many weights the tensor has."""
        return math.prod(self.shape)

    @property
    def kind(self) -> Kind:
        """Type and shape of the tensor."""
        return Kind(self.dtype, self.shape)


@dataclass(frozen=True)
class Digests:
    """Digests that identify the tensors of a base; empty in old patches.

    Attributes:
        base: digests of the base's tensors.
        after: digests of the result's, where the base's digest would give a few old values away.
    """

    base: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


class Patch:
    """The new values of changed weights: a file that turns one model into another.

    Attributes:
        base: fingerprint of the model that it applies to.
        result: fingerprint of the model that it makes.
        tensors: what changed, per changed tensor, in name order.
        digests: digests of the individual tensors of the base.
        form: a patch, or an undo file, which has the same structure.
    """

    def __init__(
        self,
        base: str,
        result: str,
        tensors: Mapping[str, Change],
        stored: Mapping[str, Tensor | InParts],
        digests: Digests | None = None,
        form: Form = PATCH,
    ) -> None:
        self.base = base
        self.result = result
        self.tensors = dict(tensors)
        self.digests = digests or Digests()
        self.form = form
        self._stored = stored

    @property
    def changed(self) -> int:
        """How many weights it changes."""
        return sum(change.count for change in self.tensors.values())

    def values(self, name: str) -> Tensor:
        """The new values of one changed tensor, flat, in position order."""
        return _whole(self._stored[f"{name}::values"])

    def positions(self, name: str) -> Iterator[NDArray[np.int64]]:
        """Flat positions of the changed weights of one tensor, ascending, in chunks."""
        change = self.tensors[name]
        return decode(_coded(change, name, self._stored), change.size)

    def cursor(self, name: str) -> Cursor:
        """The positions and new values of one changed tensor, to go through once."""
        return Cursor(self.positions(name), flat_parts(self._stored[f"{name}::values"]))

    def put(self, name: str, tensor: Tensor) -> None:
        """Write the new values of one tensor into the base's, which must be contiguous."""
        if name in self.tensors:
            self.cursor(name).put(tensor.view(-1), 0)

    def patched(self, name: str, old: Tensor) -> Tensor:
        """The result's tensor ``name``; ``old`` is the base's and is not modified."""
        if name not in self.tensors:
            return old
        new = old.clone(memory_format=torch.contiguous_format)
        self.put(name, new)
        return new

    def misfits(self, kinds: Mapping[str, Kind], folder: str | Path) -> Iterator[str]:
        """Why the patch does not fit a model folder, one line per tensor."""
        for name, change in self.tensors.items():
            if name not in kinds:
                yield f"{folder} has no tensor {name!r}"
            elif kinds[name] != change.kind:
                yield f"{name} is {change.kind} in the {self.form.what} and {kinds[name]} in {folder}"

    def first_difference(self, folder: str | Path) -> str | None:
        """The first tensor, by name, in which a folder differs from the base, or None.

        Also None if the patch has no digests, or if the folder differs only in weights that the
        patch replaces and whose old values it hides.
        """
        known = {*self.digests.base, *self.digests.after}
        if not known:
            return None
        lacking = min(known - set(layout(folder)), default=None)
        for name, tensor in stored_tensors(folder):
            if lacking is not None and lacking < name:
                break
            if self._other(name, tensor):
                return name
        return lacking

    def _other(self, name: str, tensor: StoredTensor) -> bool:
        """Whether a tensor differs from the base's, as far as its digest can tell."""
        if name in self.digests.after and name in self.tensors:
            kind = kind_of(tensor)
            if kind != self.tensors[name].kind:
                return kind.shape != self.tensors[name].shape
            found = tensor_digest(name, tensor, self._patched_parts(name, tensor))
            return found != self.digests.after[name]
        return tensor_digest(name, tensor) != self.digests.base.get(name)

    def _patched_parts(self, name: str, tensor: StoredTensor) -> Iterator[Tensor]:
        """The result's tensor in parts, from the base's."""
        cursor, start = self.cursor(name), 0
        for part in parts_of(tensor):
            cursor.put(part, start)
            yield part
            start += len(part)

    def save(self, path: str | Path) -> None:
        """Write the patch as one safetensors file; equal patches give equal bytes."""
        metadata = {
            "base": self.base,
            "result": self.result,
            "tensors": {name: asdict(change) for name, change in self.tensors.items()},
            "digests": dict(self.digests.base),
            "digests_after": dict(self.digests.after),
        }
        save_checked(path, self._stored, metadata, self.form.format, private=self.form.private)

    @classmethod
    def load(cls, path: str | Path, form: Form = PATCH) -> Patch:
        """Read a patch; a truncated or altered file or a newer format is an error.

        The values stay in the file; a tensor's values are read when they are asked for.
        """
        file, metadata = open_checked(path, form.what, form.format)
        try:
            changes = {name: _change(fields) for name, fields in metadata["tensors"].items()}
            digests = Digests(
                *(_digests(metadata.get(key, {})) for key in ("digests", "digests_after"))
            )
            ends = [str(metadata[key]) for key in ("base", "result")]
            whole = _names(changes) == {*file.names} and all(
                _sound(name, change, file) for name, change in changes.items()
            )
        except (KeyError, TypeError, ValueError, AttributeError):  # a field missing or misspelt
            whole = False
        if not whole:
            raise WagleError(f"{form.what} {path} is corrupt: invalid fields; make it again")
        return cls(ends[0], ends[1], changes, _Stored(file), digests, form)


class _Stored(Mapping[str, StoredTensor]):
    """The tensors of an open file, each read in parts when it is asked for."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file

    def __getitem__(self, name: str) -> StoredTensor:
        return StoredTensor(self._file, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.names)

    def __len__(self) -> int:
        return len(self._file.names)


def _whole(tensor: Tensor | InParts) -> Tensor:
    """A flat tensor in memory."""
    parts = list(flat_parts(tensor))
    return torch.cat(parts) if parts else torch.empty(0, dtype=tensor.dtype)


def _coded(change: Change, name: str, stored: Mapping[str, Tensor | InParts]) -> Positions:
    code = np.zeros(0, np.uint8)
    if change.encoding != "all":
        code = _whole(stored[f"{name}::{change.encoding}"]).numpy()
    return Positions(change.encoding, code, change.count)


# ---------------------------------------------------------------------------------------------
# Files come from other people


def _change(fields: Mapping[str, Any]) -> Change:
    """A change from metadata; anything else raises a ValueError or a TypeError."""
    change = Change(**{**fields, "shape": tuple(fields["shape"])})
    whole = [*change.shape, change.count]
    if not all(type(number) is int and 0 <= number < 1 << 60 for number in whole):
        raise ValueError("a size is not a whole number")
    if len(change.shape) > MOST_DIMENSIONS or change.size >= 1 << 60:
        raise ValueError("a shape is too large")
    return change


def _names(changes: Mapping[str, Change]) -> set[str]:
    """The names of the tensors that a file with these changes holds."""
    values = {f"{name}::values" for name in changes}
    coded = (n for n, change in changes.items() if change.encoding != "all")
    return values | {f"{name}::{changes[name].encoding}" for name in coded}


def _digests(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(digest) for name, digest in found.items()}


def _sound(name: str, change: Change, file: TensorFile) -> bool:
    """Whether values and positions are as the metadata says."""
    values = f"{name}::values"
    if Kind(dtype_name(file.dtype(values)), file.shape(values)) != (change.dtype, (change.count,)):
        return False
    if change.encoding != "all":
        key = f"{name}::{change.encoding}"
        if file.dtype(key) != torch.uint8 or len(file.shape(key)) != 1:
            return False
    return change.count > 0 and sound(_coded(change, name, _Stored(file)), change.size)
