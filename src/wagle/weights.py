"""The parameters of a model folder by name, read one at a time, never the whole model.

Where a folder stores tensors in another shape than the model holds them (each expert of a
mixture by itself), transformers' own conversion is applied, to just the tensors asked for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.errors import WagleError
from wagle.files import TensorFile, read_json
from wagle.model import empty_model, own_tensors, weight_files


class Weights:
    """The tensors of a model folder under the names of the model's own parameters.

    Args:
        folder: a local model folder with safetensors.
        model: its structure without weights, from ``empty_model``; made where it is needed.
    """

    def __init__(self, folder: str | Path, model: PreTrainedModel | None = None) -> None:
        self.folder = Path(folder)
        self._model = model
        self._files = {
            name: opened
            for path in weight_files(folder)
            for opened in [TensorFile(path, "weight file")]
            for name in opened.names
        }
        self._sources: dict[str, list[str]] | None = None
        self._last: tuple[str, Tensor] | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The structure of the model, every parameter on the meta device."""
        if self._model is None:
            self._model = empty_model(self.folder)
        return self._model

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the folder holds its first floating-point tensor."""
        for name, file in self._files.items():
            found = file.dtype(name)
            if found.is_floating_point:
                return found
        raise WagleError(f"{self.folder} holds no floating-point weights")

    @property
    def _plain(self) -> bool:
        """Whether the folder holds the model's own tensors, nothing to convert."""
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        config = read_json(self.folder / "config.json")
        kinds = [config.get("model_type"), *(config.get("architectures") or ())]
        if self._model is None and all(get_checkpoint_conversion_mapping(k) is None for k in kinds):
            return True  # which spares building the structure
        return {name for name, _ in self.model.named_parameters()} <= set(self._files)

    def names(self) -> list[str]:
        """The tensors of the model, tied ones once, sorted."""
        if self._plain:
            return sorted(self._files)
        return sorted({name for name, _ in own_tensors(self.model)})

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        if name in self._files:
            return self._files[name].shape(name)
        return tuple(self.model.state_dict()[name].shape)

    def has(self, name: str) -> bool:
        """Whether the folder holds a tensor of this very name."""
        return name in self._files

    def count(self) -> int:
        """How many numbers the folder holds."""
        return sum(math.prod(file.shape(name)) for name, file in self._files.items())

    def get(self, name: str) -> Tensor:
        """One parameter; a memory map of the file where nothing has to be converted."""
        if name in self._files:
            return self._files[name].get(name)
        if self._last is None or self._last[0] != name:
            self._last = (name, self._converted([name])[name])
        return self._last[1]

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """A part of the flattened parameter, in fresh memory."""
        if name in self._files:
            return self._files[name].read(name, start, stop)
        return self.get(name).reshape(-1)[start:stop]

    def load(self, names: Sequence[str], dtype: torch.dtype) -> dict[str, Tensor]:
        """Several parameters in fresh memory, in ``dtype``."""
        found = {
            name: self._files[name].read_all(name).to(dtype)
            for name in names
            if name in self._files
        }
        rest = [name for name in names if name not in found]
        if rest:
            converted = self._converted(rest)
            found |= {name: converted[name].to(dtype) for name in rest}
        return {name: found[name] for name in names}

    def close(self) -> None:
        """Release the files and what of them is mapped into memory."""
        self._last = None
        for file in set(self._files.values()):
            file.close()

    def _converted(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Parameters that transformers makes of several tensors of the folder, or renames."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        sources = self._converted_from()
        wanted = list(names)
        for name in wanted:
            if name not in sources:
                raise WagleError(
                    f"{self.folder} has no weights for {name}; save it again with save_pretrained"
                )
        keys = {key for name in wanted for key in sources[name]}
        mapping: list[Any] = get_model_conversion_mapping(self.model)
        settings = LoadStateDictConfig(dtype=self.dtype, weight_mapping=mapping)
        state = {key: self._files[key].get(key) for key in keys}
        empty = dict(self.model.named_parameters())
        convert_and_load_state_dict_in_model(self.model, state, settings)
        found = {name: self.model.get_parameter(name).detach() for name in wanted}
        place_parameters(self.model, empty)
        return found

    def _converted_from(self) -> dict[str, list[str]]:
        """Which tensors of the folder each parameter is made of."""
        if self._sources is None:
            from transformers.conversion_mapping import get_model_conversion_mapping
            from transformers.core_model_loading import (
                WeightConverter,
                WeightRenaming,
                rename_source_key,
            )

            mapping = get_model_conversion_mapping(self.model)
            renamings = [m for m in mapping if isinstance(m, WeightRenaming)]
            converters = [m for m in mapping if isinstance(m, WeightConverter)]
            state = self.model.state_dict()
            self._sources = {}
            for key in self._files:
                name, _ = rename_source_key(
                    key, renamings, converters, self.model.base_model_prefix, state
                )
                self._sources.setdefault(name, []).append(key)
        return self._sources


def place_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of a model's parameters, tied places too.

    A tensor that is no ``nn.Parameter`` becomes one that requires a gradient.
    """
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for leaf, held in module._parameters.items():
            if held is not None:
                homes.setdefault(id(held), []).append((module, leaf))
    places = {name: homes[id(p)] for name, p in model.named_parameters()}
    for name, tensor in tensors.items():
        new = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
        for module, leaf in places[name]:
            module._parameters[leaf] = new


@contextlib.contextmanager
def placed(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[dict[str, nn.Parameter]]:
    """Hold tensors as parameters of a model for a while; yields those parameters by name."""
    before = {n: p for n, p in model.named_parameters() if n in tensors}
    place_parameters(model, tensors)
    now = dict(model.named_parameters())
    try:
        yield {name: now[name] for name in tensors}
    finally:
        place_parameters(model, before)


def place_buffers(model: nn.Module, weights: Weights, device: torch.device) -> None:
    """Move a model's buffers to ``device``, those that the folder holds with its values."""
    for name, buffer in list(model.named_buffers()):
        module, _, leaf = name.rpartition(".")
        found = weights.get(name) if weights.has(name) else buffer
        model.get_submodule(module)._buffers[leaf] = found.to(device)
