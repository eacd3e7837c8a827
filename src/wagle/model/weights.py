"""The weights of a model on disk, read by name, one at a time; fingerprints.

If a folder stores tensors in a different form from the model (each expert of a mixture
separately), transformers' own conversion is applied, to just the tensors asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from wagle.compat.transformers import has_conversion, load_converted, stored_names
from wagle.model.loading import empty_model
from wagle.model.stored import weight_files as weight_files
from wagle.model.structure import place_parameters
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json
from wagle.system.files.tensors import TensorFile
from wagle.system.processes import group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STREAM = "wagle_stream"  # the attribute of a model that keeps its blocks on disk
_CHUNK = 1 << 20  # weights widened at once
# Model types whose folders hold the model's own tensors, and the class of each, so that
# transformers, which takes seconds to import, need not be asked about them.
_AS_STORED = {
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gptj": "GPTJForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "opt": "OPTForCausalLM",
    "phi": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}


class Weights:
    """The tensors of a model folder under the names of the model's own parameters.

    Args:
        folder: a local model folder with safetensors.
        model: its structure without weights, from ``empty_model``; built when needed.
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
        self._converting = threading.Lock()

    @property
    def model(self) -> PreTrainedModel:
        """The structure of the model, with every parameter on the meta device."""
        if self._model is None:
            self._model = empty_model(self.folder)
        return self._model

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the folder's first floating-point tensor."""
        for name, file in self._files.items():
            found = file.dtype(name)
            if found.is_floating_point:
                return found
        raise WagleError(f"{self.folder} holds no floating-point weights")

    @property
    def _plain(self) -> bool:
        """Whether the folder holds the model's own tensors, with nothing to convert."""
        config = read_json(self.folder / "config.json", finite=False)
        kinds = [config.get("model_type"), *(config.get("architectures") or ())]
        if self._model is None and any({*kinds} <= {*known} for known in _AS_STORED.items()):
            return True
        if self._model is None and not any(has_conversion(k) for k in kinds):
            return True  # saves building the structure
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
        """Whether the folder holds a tensor of exactly this name."""
        return name in self._files

    def count(self) -> int:
        """The number of elements in all the folder's tensors."""
        return sum(math.prod(file.shape(name)) for name, file in self._files.items())

    def get(self, name: str) -> Tensor:
        """One parameter; a memory map of the file if nothing has to be converted."""
        if name in self._files:
            return self._files[name].get(name)
        with self._converting:  # one thread at a time: the conversion uses the model
            if self._last is None or self._last[0] != name:
                self._last = (name, self._converted([name])[name])
            return self._last[1]

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """A part of the flattened parameter, in fresh memory."""
        if name in self._files:
            return self._files[name].read(name, start, stop)
        return self.get(name).reshape(-1)[start:stop]

    def load(
        self, names: Sequence[str], dtype: torch.dtype, into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Several parameters in ``dtype``, in fresh memory or, as far as given, in that of ``into``.

        Args:
            names: the parameters.
            dtype: theirs in memory.
            into: tensors of their shapes in ``dtype``.
        """
        found = {
            name: self._loaded(name, dtype, (into or {}).get(name))
            for name in names
            if name in self._files
        }
        rest = [name for name in names if name not in found]
        if rest:
            converted = self._converted(rest)
            found |= {name: converted[name].to(dtype) for name in rest}
        return {name: found[name] for name in names}

    def _loaded(self, name: str, dtype: torch.dtype, into: Tensor | None) -> Tensor:
        file = self._files[name]
        if into is None:
            return file.read_all(name).to(dtype)
        if file.dtype(name) == dtype:
            return file.read_all(name, into)
        return into.copy_(file.read_all(name))

    def close(self) -> None:
        """Release the files and their memory maps."""
        self._last = None
        for file in set(self._files.values()):
            file.close()

    def _converted(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Parameters that transformers builds from several tensors of the folder, or renames."""
        sources = self._converted_from()
        wanted = list(names)
        for name in wanted:
            if name not in sources:
                raise WagleError(
                    f"{self.folder} has no weights for {name}; save it again with save_pretrained"
                )
        keys = {key for name in wanted for key in sources[name]}
        state = {key: self._files[key].get(key) for key in keys}
        empty = dict(self.model.named_parameters())
        load_converted(self.model, state, self.dtype)
        found = {name: self.model.get_parameter(name).detach() for name in wanted}
        place_parameters(self.model, empty)
        return found

    def _converted_from(self) -> dict[str, list[str]]:
        """Which tensors of the folder each parameter is made from."""
        if self._sources is None:
            self._sources = stored_names(self.model, self._files)
        return self._sources


def place_buffers(model: nn.Module, weights: Weights, device: torch.device) -> None:
    """Move a model's buffers to ``device``, with the folder's values for those it holds."""
    for name, buffer in list(model.named_buffers()):
        module, _, leaf = name.rpartition(".")
        found = weights.get(name) if weights.has(name) else buffer
        setattr(model.get_submodule(module), leaf, found.to(device))


class StoredTensor:
    """One tensor of a model folder, read in parts: no memory map of it stays resident."""

    def __init__(self, file: TensorFile, name: str) -> None:
        self._file, self._name = file, name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._file.shape(self._name)

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype."""
        return self._file.dtype(self._name)

    def parts(self, size: int = _CHUNK) -> Iterator[Tensor]:
        """The flattened tensor in order, ``size`` elements at a time, in fresh memory."""
        whole = math.prod(self.shape)
        for start in range(0, whole, size):
            yield self._file.read(self._name, start, min(start + size, whole))


def stored_tensors(folder: str | Path) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of a model folder as they are stored, one at a time, sorted by name."""
    with contextlib.ExitStack() as stack:
        homes = {}
        for path in weight_files(folder):
            opened = stack.enter_context(TensorFile(path, "weight file"))
            homes.update(dict.fromkeys(opened.names, opened))
        for name in sorted(homes):
            yield name, StoredTensor(homes[name], name)


def own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The saved tensors of a live module, tied ones once, sorted by name."""
    parameters = {id(p): name for name, p in model.named_parameters()}  # tied: the first name
    state = model.state_dict(keep_vars=True)
    for name in sorted(state):
        if parameters.get(id(state[name]), name) == name:
            yield name, state[name].detach()


def fingerprint(source: nn.Module | str | Path) -> str:
    """SHA-256 over the tensors sorted by name (name, shape, values widened to float32), tied once.

    It does not depend on shards, metadata or lossless upcasts: a bfloat16 folder and the same
    weights in float32 have the same fingerprint. Returns 64 hex digits.
    """
    digest = hashlib.sha256()
    tensors = _live_parts(source) if isinstance(source, nn.Module) else _folder_parts(source)
    for name, shape, chunks in tensors:
        digest.update(f"{name}\0{list(shape)}\0".encode())
        for chunk in chunks:
            digest.update(chunk.cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def equal_weights(one: str | Path, other: str | Path) -> bool:
    """Whether two model folders have one fingerprint; reading ends at the first difference."""
    with (
        contextlib.closing(_folder_parts(one)) as these,
        contextlib.closing(_folder_parts(other)) as those,
    ):
        for left, right in zip_longest(these, those):
            if left is None or right is None or left[:2] != right[:2]:
                return False
            for mine, theirs in zip(left[2], right[2], strict=True):
                bits = (part.cpu().float().view(torch.int32) for part in (mine, theirs))
                if not torch.equal(*bits):
                    return False
    return True


_Parts: TypeAlias = Generator[tuple[str, tuple[int, ...], Iterable[Tensor]], None, None]


def _live_parts(model: nn.Module) -> _Parts:
    """The saved tensors of a live module in parts, tied ones once, sorted by name."""
    for name, tensor in own_tensors(model):
        if tensor.is_meta:
            stream: Any = getattr(getattr(model, "module", model), STREAM)
            yield name, tuple(tensor.shape), streamed_parts(stream, name, tensor.dtype)
        elif type(tensor).__name__ == "DTensor":  # part by part, in the order of the processes
            parts = group.in_turn(tensor.to_local().reshape(-1), _CHUNK)  # type: ignore[attr-defined]
            yield name, tuple(tensor.shape), parts
        else:
            yield name, tuple(tensor.shape), tensor.reshape(-1).split(_CHUNK)


def streamed_parts(stream: Any, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """A parameter of a block of a streamed model in parts, with the overlay.

    Args:
        stream: what keeps the blocks of the model on disk.
        name: of the parameter.
        dtype: the model's.
    """
    weights, laid = Weights(stream.folder), stream.overlay.get(name)
    try:
        size = math.prod(weights.shape(name))
        for start in range(0, size, _CHUNK):
            part = weights.read(name, start, min(start + _CHUNK, size))
            part = part.to(dtype, copy=laid is not None)
            if laid is not None:
                laid.over(part, start)
            yield part
    finally:
        weights.close()


def _folder_parts(folder: str | Path) -> _Parts:
    """The same for a folder, under the names of the model's own parameters."""
    weights = Weights(folder)
    try:
        for name in weights.names():
            shape = weights.shape(name)
            size = math.prod(shape)
            starts = range(0, size, _CHUNK)
            yield name, shape, (weights.read(name, i, min(i + _CHUNK, size)) for i in starts)
    finally:
        weights.close()
