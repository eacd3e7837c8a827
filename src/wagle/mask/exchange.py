"""Masks in the format in which others publish them: a ``.pt`` file of bool tensors.

Two kinds can be read: ``{parameter name: tensor}``, and ``{0, 1, 2, ...: tensor}``, which numbers
the linear layers of all blocks in the order of registration (as wanda masks are stored). Only
tensors are read; code in such a file is never run.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wagle.mask.mask import Mask
from wagle.mask.writing import MaskWriter
from wagle.model.loading import empty_model
from wagle.model.structure import find_blocks
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError
from wagle.system.files.atomic import atomic_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LARGEST = 8  # bytes of a weight's 0 or 1 in the widest dtype
_AROUND = 1 << 26  # bytes of everything else: names, and the padding of every tensor
_DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def import_mask(
    file: str | Path, model_folder: str | Path, *, trust_remote_code: bool = False
) -> Mask:
    """Read a published mask of a model.

    Args:
        file: a ``.pt`` file that maps parameter names, or numbers of linear layers, to tensors of 0
            and 1 (bool, int or float) in the parameter's shape.
        model_folder: the model that the mask is for; names and shapes must agree.
        trust_remote_code: as in ``wagle.model.load_model``.

    Returns:
        A mask of one ratio: count / candidates. The candidates are all weights or, for a numbered
        file, those of the linear layers; everything else is not selected.
    """
    model = empty_model(model_folder, trust_remote_code=trust_remote_code)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = _read(Path(file), sum(map(math.prod, shapes.values())))
    by_number = all(isinstance(key, int) for key in found)
    if by_number:
        found = _by_name(found, model, file)
    inside = {name: shape for name, shape in shapes.items() if name in found or not by_number}
    _check(found, inside, file)
    count = sum(int(torch.count_nonzero(tensor)) for tensor in found.values())
    total = sum(tensor.numel() for tensor in found.values())
    if count == 0:
        raise WagleError(f"mask {file} selects no weight, so there is nothing to train")
    writer = MaskWriter(shapes, [count / total])
    for name, tensor in found.items():
        writer.add(name, tensor != 0)
    metadata = {
        "score": "imported",
        "settings": {"file": Path(file).name},
        "candidates": total,
        "names": list(inside) if by_number else None,
        "thresholds": None,
        "model": fingerprint(model_folder),
    }
    return Mask(*writer.finish([count], metadata))


def export_mask(mask: Mask, path: str | Path) -> None:
    """Write a mask of one ratio as ``{parameter name: bool tensor}``, atomically.

    Equal masks give identical files; a ladder is an error.
    """
    tensors = dict(mask)  # raises for a ladder before the file is made
    with atomic_file(path) as part, part.open("wb") as file:
        torch.save(tensors, file)


def _read(path: Path, weights: int) -> dict[Any, Tensor]:
    """The tensors in a ``.pt`` file, mapped into memory if its format allows.

    Args:
        path: the file.
        weights: how many the model has; a file that unpacks to more than their mask is refused.
    """
    if not path.is_file():
        raise WagleError(f"mask {path} does not exist")
    try:
        _check_unpacked(path, weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown pickle protocol fails below anyway
            found = torch.load(  # noqa: TID251 - this is the loader for published masks
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except WagleError:
        raise
    except Exception as error:
        raise WagleError(_unreadable(path, error)) from error
    kinds = {type(key) for key in found} if isinstance(found, dict) else set()
    if kinds not in ({str}, {int}):
        raise WagleError(
            f"mask {path} is not a dict that maps parameter names, or numbers of linear layers, to "
            "tensors"
        )
    for key, value in found.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        if not plain or value.dtype not in _DTYPES or value.is_nested:
            raise WagleError(f"mask {path} holds no plain tensor for {str(key)[:80]}")
    return dict(found)


def _check_unpacked(path: Path, weights: int) -> None:
    """Refuse an archive that unpacks to more than a mask of the model can take.

    Reading would unpack all of it: a megabyte can become gigabytes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    most = _LARGEST * weights + _AROUND
    if size > most:
        raise WagleError(
            f"mask {path} unpacks to {size / 1e6:,.0f} MB, but a mask of this model takes at most "
            f"{most / 1e6:,.0f} MB; is it the mask of another model?"
        )


def _unreadable(path: Path, error: Exception) -> str:
    """Why a file could not be read, in one line: torch's own message fills a page."""
    advice = "have it saved with torch.save({name: bool tensor})"
    if not isinstance(error, pickle.UnpicklingError):
        return f"mask {path} is truncated or was not saved by torch.save; get it again, or {advice}"
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code is None:
        return f"mask {path} holds code, not only tensors, or was not saved by torch.save; {advice}"
    return f"mask {path} holds code, not only tensors ({code[1]} was not run); {advice}"


def _by_name(
    found: Mapping[Any, Tensor], model: PreTrainedModel, file: str | Path
) -> dict[Any, Tensor]:
    """Numbered tensors under the names of the weights that they belong to."""
    from transformers.pytorch_utils import Conv1D

    inside, blocks = find_blocks(model)
    names = [
        f"{inside}.{index}.{name}.weight"
        for index, block in enumerate(blocks)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    if sorted(found) != list(range(len(names))):
        raise WagleError(
            f"mask {file} numbers {len(found)} linear layers ({min(found)} to {max(found)}), but "
            f"the blocks of the model have {len(names)}; is it the mask of another model?"
        )
    return {name: found[number] for number, name in enumerate(names)}


def _check(
    found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: str | Path
) -> None:
    """Refuse names, shapes and values that a mask of the model cannot have."""
    for name in [*shapes, *found]:
        here, wanted = tuple(found[name].shape) if name in found else None, shapes.get(name)
        if here != wanted:
            raise WagleError(
                f"mask {file} does not fit the model: {name} is {here or 'absent'} in the mask and "
                f"{wanted or 'absent'} in the model{_padding(here, wanted)}"
            )
    for name, tensor in found.items():
        other = tensor[(tensor != 0) & (tensor != 1)] if tensor.dtype != torch.bool else tensor[:0]
        if other.numel():
            raise WagleError(
                f"mask {file} holds {other.reshape(-1)[0].item()} in {name}; a mask holds only 0 and "
                "1 (scores must first be cut off at a ratio)"
            )


def _padding(mask: tuple[int, ...] | None, model: tuple[int, ...] | None) -> str:
    """A hint if the two differ by one row: a padding token was added to one of the two models."""
    if not mask or not model or len(mask) != 2 or mask[1:] != model[1:]:
        return ""
    if abs(mask[0] - model[0]) != 1:
        return ""
    where = "mask" if mask[0] > model[0] else "model"
    return (
        f"; the {where} has one row more: was a token such as [pad] added there? give both the "
        "same tokens (resize_token_embeddings)"
    )
