"""The patch: the new values of changed weights only; it needs its base, and cannot restore it.

What a patch hides: the old values. No value of the base is in the file, so a patch alone gives
neither model back, and ``apply`` works in one direction only.

What it does not hide: the result, from anyone who also holds the base; which weights changed, so
it points at where the old values were; and the new values themselves, which may say something
about what was there. A patch covers weights: configuration and tokenizer are those of the base.

Everything here works on model folders, compares stored bits (-0.0 is not 0.0, a NaN equals itself
when its bits do) and holds one tensor or one shard at a time, beside the patch itself.

The file is one safetensors file (``wagle-patch/1``). Per changed tensor it holds ``NAME::values``,
flat and in position order, and where these values go, as the smaller of two codes:

    NAME::gaps   uint8: how many unchanged weights precede each changed one, counted from the one
                 before it; 255 stands for "255 more, read on"
    NAME::bits   one bit per weight, lowest first

A tensor that changed everywhere has neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wagle.errors import WagleError
from wagle.files import TensorFile, atomic_folder, load_checked, save_checked
from wagle.mask import Mask
from wagle.weights import copy_other_files, fingerprint, folder_tensors, weight_files, write_shard

FORMAT = "wagle-patch/1"
_CHUNK = 1 << 22  # weights per step of anything that compares or decodes; a multiple of 8
_MORE = 255  # in the gap code: 255 more unchanged weights, the gap goes on
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)


# Positions


@dataclass(frozen=True)
class Positions:
    """Where a tensor changed.

    Attributes:
        encoding: ``all``, ``gaps`` or ``bits``.
        code: the coded positions, uint8; empty for ``all``.
        count: how many positions there are.
    """

    encoding: str
    code: NDArray[np.uint8]
    count: int


def _gaps(where: NDArray[np.intp], last: int) -> NDArray[np.uint8]:
    """Gap code of ascending positions, all after ``last``."""
    gaps = np.diff(where, prepend=last) - 1
    ends = np.cumsum(gaps // _MORE + 1) - 1
    code = np.full(ends[-1] + 1, _MORE, dtype=np.uint8)
    code[ends] = gaps % _MORE
    return code


def encode(parts: Iterable[NDArray[np.bool_]], size: int) -> Positions:
    """Code the True positions of a flat array, as gaps or as bits, whichever is smaller.

    Args:
        parts: the array in order; all parts but the last have a multiple of 8 entries.
        size: how many entries the array has.
    """
    most = (size + 7) // 8  # bytes of the bit mask: longer gap codes need not be finished
    bits, gaps, used, count, start, last = [], [], 0, 0, 0, -1
    for part in parts:
        bits.append(np.packbits(part, bitorder="little"))
        where = np.flatnonzero(part) + start
        if len(where) and used < most:
            gaps.append(_gaps(where, last))
            used += len(gaps[-1])
            last = int(where[-1])
        count += len(where)
        start += len(part)
    empty = np.zeros(0, dtype=np.uint8)
    if count == size:
        return Positions("all", empty, count)
    if used < most:
        return Positions("gaps", np.concatenate([empty, *gaps]), count)
    return Positions("bits", np.concatenate(bits), count)


def decode(positions: Positions, size: int) -> Iterator[NDArray[np.int64]]:
    """The positions, ascending, some millions of weights at a time."""
    code = positions.code
    if positions.encoding == "gaps":
        before = 0  # weights passed so far
        for start in range(0, len(code), _CHUNK):
            part = code[start : start + _CHUNK]
            ends = part != _MORE
            passed = np.cumsum(part + ends, dtype=np.int64) + before  # a sum is at most 255
            before = int(passed[-1])
            yield passed[ends] - 1
        return
    for start in range(0, size, _CHUNK):
        here = min(_CHUNK, size - start)
        if positions.encoding == "all":
            yield np.arange(start, start + here, dtype=np.int64)
        else:
            packed = code[start // 8 : (start + here + 7) // 8]
            part = np.unpackbits(packed, count=here, bitorder="little")
            yield (np.flatnonzero(part) + start).astype(np.int64, copy=False)


def _sound(positions: Positions, size: int) -> bool:
    """Whether the code gives ``count`` positions below ``size``: files come from other people."""
    encoding, code, count = positions.encoding, positions.code, positions.count
    if encoding == "all":
        return count == size
    if encoding == "gaps":
        ended = len(code) > 0 and code[-1] != _MORE
        total = int(code.sum(dtype=np.int64))
        return bool(ended and np.count_nonzero(code != _MORE) == count and total + count <= size)
    if encoding != "bits" or len(code) != (size + 7) // 8 or not size:
        return False
    beyond = int(code[-1]) >> ((size - 1) % 8 + 1)
    return beyond == 0 and int(_ONES[code].sum(dtype=np.int64)) == count


# Tensors


def _stored(tensor: Tensor) -> Tensor:
    """The stored bits of a tensor: flat integers of the same width."""
    return tensor.reshape(-1).view(_INTEGERS[tensor.element_size()])


def _differs(old: Tensor, new: Tensor) -> Iterator[NDArray[np.bool_]]:
    """Where two tensors of one type and shape differ in any bit, flat, in chunks."""
    a, b = _stored(old), _stored(new)
    for start in range(0, len(a), _CHUNK):
        yield (a[start : start + _CHUNK] != b[start : start + _CHUNK]).numpy()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


class _Kind(NamedTuple):
    """Type and shape of a tensor, printed as ``bfloat16 [2, 3]``."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def _layout(folder: str | Path) -> dict[str, _Kind]:
    """Type and shape of every tensor of a model folder; reads no weights."""
    return {name: _Kind(_dtype(t), tuple(t.shape)) for name, t in folder_tensors(folder)}


def _same_layout(base: str | Path, result: str | Path) -> dict[str, _Kind]:
    """The layout that two folders share; anything else is an error naming the first tensor."""
    ours, theirs = _layout(base), _layout(result)
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            has, lacks = (base, result) if name in ours else (result, base)
            raise WagleError(
                f"{lacks} has no tensor {name!r}, {has} has it; compare two versions of one model"
            )
        if ours[name] != theirs[name]:
            raise WagleError(
                f"{name} is {ours[name]} in {base} and {theirs[name]} in {result}; save both models "
                "in one precision and shape"
            )
    return ours


def _pairs(base: str | Path, result: str | Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The tensors of two folders of one layout: name, old, new."""
    for (name, old), (_, new) in zip(folder_tensors(base), folder_tensors(result), strict=True):
        yield name, old, new


# The patch


@dataclass(frozen=True)
class Change:
    """What a patch says of one changed tensor.

    Attributes:
        shape: of the whole tensor.
        dtype: of the tensor and of its new values, as torch names it.
        encoding: how the positions are stored: ``all``, ``gaps`` or ``bits``.
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


class Patch:
    """The new values of changed weights: a file that turns one model into another.

    Attributes:
        base: fingerprint of the model that it applies to.
        result: fingerprint of the model that it makes.
        tensors: what changed, per changed tensor, in name order.
    """

    def __init__(
        self,
        base: str,
        result: str,
        tensors: Mapping[str, Change],
        stored: Mapping[str, Tensor],
    ) -> None:
        self.base = base
        self.result = result
        self.tensors = dict(tensors)
        self._stored = dict(stored)

    @property
    def changed(self) -> int:
        """How many weights it changes."""
        return sum(change.count for change in self.tensors.values())

    def values(self, name: str) -> Tensor:
        """The new values of one changed tensor, flat, in position order."""
        return self._stored[f"{name}::values"]

    def _coded(self, name: str) -> Positions:
        change = self.tensors[name]
        key = f"{name}::{change.encoding}"
        code = self._stored[key].numpy() if change.encoding != "all" else np.zeros(0, np.uint8)
        return Positions(change.encoding, code, change.count)

    def positions(self, name: str) -> Iterator[NDArray[np.int64]]:
        """Flat positions of the changed weights of one tensor, ascending, in chunks."""
        return decode(self._coded(name), self.tensors[name].size)

    def patched(self, name: str, old: Tensor) -> Tensor:
        """The tensor ``name`` of the result; ``old`` is that of the base and stays as it is."""
        if name not in self.tensors:
            return old
        new = old.clone(memory_format=torch.contiguous_format)
        flat, values, start = _stored(new), _stored(self.values(name)), 0
        for where in self.positions(name):
            flat[torch.from_numpy(where)] = values[start : start + len(where)]
            start += len(where)
        return new

    def _misfits(self, layout: Mapping[str, _Kind], folder: str | Path) -> Iterator[str]:
        """What keeps the patch from fitting a model folder, one line per tensor."""
        for name, change in self.tensors.items():
            kind = _Kind(change.dtype, change.shape)
            if name not in layout:
                yield f"{folder} has no tensor {name!r}"
            elif layout[name] != kind:
                yield f"{name} is {kind} in the patch and {layout[name]} in {folder}"

    def save(self, path: str | Path) -> None:
        """Write the patch as one safetensors file; equal patches give equal bytes."""
        metadata = {
            "base": self.base,
            "result": self.result,
            "tensors": {name: asdict(change) for name, change in self.tensors.items()},
        }
        save_checked(path, self._stored, metadata, FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read a patch; a truncated or altered file is an error, and so is a newer format.

        The values stay in the file, mapped into memory.
        """
        stored, metadata = load_checked(path, "patch", FORMAT)
        try:
            changes = {
                name: Change(**{**fields, "shape": tuple(fields["shape"])})
                for name, fields in metadata["tensors"].items()
            }
            patch = cls(metadata["base"], metadata["result"], changes, stored)
            sound = patch._sound()
        except (KeyError, TypeError, AttributeError):  # a field is missing or misspelt
            sound = False
        if not sound:
            raise WagleError(f"patch {path} is corrupt: its fields do not fit; make it again")
        return patch

    def _sound(self) -> bool:
        """Whether values and positions are what the metadata says of them."""
        for name, change in self.tensors.items():
            values = self.values(name)
            if (_dtype(values), list(values.shape)) != (change.dtype, [change.count]):
                return False
            if not change.count or not _sound(self._coded(name), change.size):
                return False
        return True


def extract(base: str | Path, result: str | Path, out: str | Path) -> Patch:
    """Write the patch that turns the model folder ``base`` into the model folder ``result``.

    Args:
        base: the model that whoever applies the patch will hold.
        result: the same model with other weights: equal tensor names, shapes and types.
        out: the file to write; not in a model folder, where it would count as weights.

    Returns:
        The patch. Two equal models have none: that is an error.
    """
    _same_layout(base, result)
    if Path(out).resolve().parent in {Path(base).resolve(), Path(result).resolve()}:
        raise WagleError(
            f"{out} lies among the weights of a model; write the patch to another folder"
        )
    changes: dict[str, Change] = {}
    stored: dict[str, Tensor] = {}
    for name, old, new in _pairs(base, result):
        positions = encode(_differs(old, new), new.numel())
        if not positions.count:
            continue
        changes[name] = Change(tuple(new.shape), _dtype(new), positions.encoding, positions.count)
        if positions.encoding == "all":
            stored[f"{name}::values"] = new.reshape(-1)
            continue
        flat = _stored(new)
        values = [flat[torch.from_numpy(where)] for where in decode(positions, new.numel())]
        stored[f"{name}::values"] = torch.cat(values).view(new.dtype)
        stored[f"{name}::{positions.encoding}"] = torch.from_numpy(positions.code)
    if not changes:
        raise WagleError(
            f"nothing changed between {base} and {result}: no weight differs in any bit; check that "
            "the second is the unlearned model"
        )
    patch = Patch(fingerprint(base), fingerprint(result), changes, stored)
    patch.save(out)
    return patch


def apply(base: str | Path, patch_path: str | Path, out: str | Path) -> None:
    """Write the model folder that a patch makes of its base.

    Shards and all other files are those of the base. The folder appears only when its weights
    have the fingerprint that the patch promises.

    Args:
        base: the model folder that the patch was made for; another one is refused.
        patch_path: the patch.
        out: the folder to make; one that holds anything is refused.
    """
    target = Path(out)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WagleError(f"{out} exists already and is not an empty folder; choose another one")
    patch = Patch.load(patch_path)
    found = fingerprint(base)
    if found != patch.base:
        raise WagleError(
            f"patch {patch_path} belongs to base {patch.base[:6]}, {base} is {found[:6]}; apply it to "
            "the model that it was made for"
        )
    misfit = next(patch._misfits(_layout(base), base), None)
    if misfit:
        raise WagleError(
            f"patch {patch_path} does not fit: {misfit}; apply it to the model as it was saved"
        )
    with atomic_folder(target) as part:
        copy_other_files(base, part)
        for file in weight_files(base):
            with TensorFile(file, "weight file") as shard:
                new = {name: patch.patched(name, shard.get(name)) for name in shard.names}
                write_shard(part / file.name, new)
        made = fingerprint(part)
        if made != patch.result:
            raise WagleError(
                f"patch {patch_path} made {made[:6]} of {base} instead of {patch.result[:6]}; nothing "
                "was kept: make the patch again"
            )


@dataclass(frozen=True)
class Verification:
    """What differs between two models, and whether it may.

    Attributes:
        changed: weights that differ in any bit.
        total: weights in all.
        tensors: changed weights per tensor, changed tensors only, in name order.
        mask_count: weights that the mask selects (of a ladder: its largest ratio), or None
            without a mask.
        mask_of_base: whether the mask was made for this base, or None if there is no mask or it
            does not say; True is not required, a mask may serve a related checkpoint.
        outside: changed weights that the mask does not select, per tensor, or None without a mask.
        patch_problems: why base and patch do not give the result, one line each, or None without
            a patch.
    """

    changed: int
    total: int
    tensors: dict[str, int]
    mask_count: int | None = None
    mask_of_base: bool | None = None
    outside: dict[str, int] | None = None
    patch_problems: tuple[str, ...] | None = None

    @property
    def outside_mask(self) -> int | None:
        """How many changed weights the mask does not select, or None without a mask."""
        return None if self.outside is None else sum(self.outside.values())

    @property
    def patch_matches(self) -> bool | None:
        """Whether base and patch give the result bit for bit, or None without a patch."""
        return None if self.patch_problems is None else not self.patch_problems

    @property
    def ok(self) -> bool:
        """Whether nothing changed outside the mask and the patch matches, as far as asked.

        Two equal models are ok here; ``changed`` says so.
        """
        return not self.outside and not self.patch_problems


def verify(
    base: str | Path,
    result: str | Path,
    *,
    mask: Mask | str | Path | None = None,
    patch: Patch | str | Path | None = None,
) -> Verification:
    """Compare two model folders bit by bit, with what should explain the difference.

    Args:
        base: the model folder before.
        result: the model folder after: equal tensor names, shapes and types.
        mask: a mask, or its file; every changed weight must be selected by it. A tensor that is
            not in the mask may not change at all.
        patch: a patch, or its file; base and patch must give the result bit for bit.

    Returns:
        The counts; ``ok`` is the verdict. What cannot be compared at all is an error.
    """
    layout = _same_layout(base, result)
    mask = Mask.load(mask) if isinstance(mask, str | Path) else mask
    patch = Patch.load(patch) if isinstance(patch, str | Path) else patch
    for name, shape in mask.shapes.items() if mask is not None else ():
        if name in layout and layout[name].shape != tuple(shape):
            raise WagleError(
                f"the mask does not fit the model: {name} is {list(shape)} in the mask and "
                f"{list(layout[name].shape)} in {base}"
            )
    ours = fingerprint(base) if mask is not None or patch is not None else ""
    problems = [] if patch is None else _wrong_ends(patch, base, ours, result)
    misfits = [] if patch is None else list(patch._misfits(layout, base))
    tensors: dict[str, int] = {}
    outside: dict[str, int] = {}
    for name, old, new in _pairs(base, result):
        changed, stray = _count(old, new, mask, name)
        if changed:
            tensors[name] = changed
        if stray:
            outside[name] = stray
        if patch is not None and not misfits:
            wrong, _ = _count(patch.patched(name, old), new, None, name)
            if wrong:
                problems.append(
                    f"{name}: {wrong} weights of base + patch are not those of {result}"
                )
    made_for = None if mask is None else mask.metadata.get("model")
    return Verification(
        changed=sum(tensors.values()),
        total=sum(math.prod(kind.shape) for kind in layout.values()),
        tensors=tensors,
        mask_count=None if mask is None else mask.counts[-1],
        mask_of_base=None if made_for is None else made_for == ours,
        outside=None if mask is None else outside,
        patch_problems=None if patch is None else (*problems, *misfits),
    )


def _wrong_ends(patch: Patch, base: str | Path, ours: str, result: str | Path) -> list[str]:
    """What the fingerprints of base (``ours``) and result say against the patch."""
    problems = []
    if ours != patch.base:
        problems.append(f"the patch belongs to base {patch.base[:6]}, {base} is {ours[:6]}")
    theirs = fingerprint(result)
    if theirs != patch.result:
        problems.append(f"the patch makes {patch.result[:6]}, {result} is {theirs[:6]}")
    return problems


def _count(old: Tensor, new: Tensor, mask: Mask | None, name: str) -> tuple[int, int]:
    """How many weights of a tensor changed, and how many of those the mask does not select."""
    level = mask.level(name).reshape(-1) if mask is not None and name in mask.shapes else None
    changed, stray, start = 0, 0, 0
    for part in _differs(old, new):
        here = int(np.count_nonzero(part))
        changed += here
        if level is not None:
            unselected = level[start : start + len(part)].numpy() == 0
            stray += int(np.count_nonzero(part & unselected))
        elif mask is not None:
            stray += here
        start += len(part)
    return changed, stray
