"""The gradient store: d(mean loss)/d(weight) on the forget set and on the retain set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wagle import __version__
from wagle.errors import WagleError
from wagle.files import TensorFile, atomic_folder, read_json, save_tensors, write_json
from wagle.model import DTYPES, fingerprint, weight_files

FORMAT = "wagle-gradients/1"
SETS = ("forget", "retain")


class GradientStore:
    """Gradients by parameter, in memory or in a folder, and the weights they belong to.

    Attributes:
        metadata: format, versions, model fingerprint, engine, reduction, dtype, record ids.
        shapes: the shape of every parameter that requires a gradient, in parameter order.
    """

    def __init__(
        self,
        metadata: dict[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        files: Mapping[str, list[Path]],
    ) -> None:
        self.metadata = metadata
        self.shapes = {name: tuple(shape) for name, shape in metadata["parameters"]}
        self._tensors = {kind: dict(found) for kind, found in tensors.items()}
        self._open: dict[str, dict[str, TensorFile]] = {}
        for kind, paths in files.items():
            homes: dict[str, TensorFile] = {}
            for path in paths:
                opened = TensorFile(path, "gradient store file")
                homes.update(dict.fromkeys(opened.names, opened))
            self._open[kind] = homes
        folder = metadata["model"]["folder"]
        if folder is not None:
            self._open["weight"] = {
                name: opened
                for path in weight_files(folder)
                for opened in [TensorFile(path, "weight file")]
                for name in opened.names
            }

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model that the gradients were taken of."""
        return str(self.metadata["model"]["fingerprint"])

    def get(self, quantity: str, name: str) -> Tensor:
        """One tensor: ``weight``, ``grad_forget`` or ``grad_retain`` of the parameter ``name``."""
        kind = quantity.removeprefix("grad_")
        if name in self._tensors.get(kind, {}):
            return self._tensors[kind][name]
        homes = self._open.get(kind, {})
        if name not in homes:
            raise WagleError(f"the gradient store has no {quantity} of {name}; make it again")
        return homes[name].get(name)

    def check_weights(self) -> None:
        """Refuse to score weights that changed since the gradients were taken."""
        folder = self.metadata["model"]["folder"]
        if folder is not None and fingerprint(folder) != self.model_fingerprint:
            raise WagleError(
                f"{folder} is not the model of this gradient store any more; attribute it again"
            )

    @classmethod
    def open(cls, path: str | Path) -> GradientStore:
        """Open a store that was saved with ``path=``."""
        folder = Path(path)
        if not (folder / "store.json").is_file():
            raise WagleError(f"{path} is not a gradient store; make one: wagle attribute RECIPE")
        metadata = read_json(folder / "store.json")
        if metadata.get("format") != FORMAT:
            raise WagleError(f"{path} has format {metadata.get('format')}, not {FORMAT}")
        kinds = (*SETS, *(() if metadata["model"]["folder"] else ("weight",)))
        files = {kind: sorted(folder.glob(f"{kind}-*.safetensors")) for kind in kinds}
        store = cls(metadata, {}, files)
        for kind in kinds:
            missing = set(store.shapes) - set(store._open[kind])
            if missing:
                raise WagleError(f"{path} lacks {kind} of {sorted(missing)[0]}; make it again")
        return store


def build_store(
    model: nn.Module,
    folder: str | Path | None,
    parts: Iterable[tuple[str, dict[str, Tensor]]],
    *,
    path: str | Path | None,
    store_dtype: str,
    details: dict[str, Any],
) -> GradientStore:
    """Collect the parts that an engine yields into a store.

    Args:
        model: the live model; its weights are copied where it has no folder.
        folder: the folder that holds exactly these weights, or None.
        parts: (set, gradients by name), as they are finished; each becomes one shard.
        path: the folder to write, or None to stay in memory.
        store_dtype: ``float32`` or ``bfloat16``.
        details: more metadata: engine, records, seed.
    """
    kind = DTYPES[store_dtype]
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    metadata = {
        "format": FORMAT,
        "versions": {"wagle": __version__, "torch": torch.__version__},
        "model": {
            "fingerprint": fingerprint(model),
            "folder": str(Path(folder).absolute()) if folder is not None else None,
        },
        "reduction": "mean over records of the mean over scored tokens",
        "dtype": store_dtype,
        "parameters": [[name, list(p.shape)] for name, p in weights.items()],
        **details,
    }
    copies = {} if folder else {n: p.detach().cpu().clone() for n, p in weights.items()}
    if path is None:
        kept: dict[str, dict[str, Tensor]] = {s: {} for s in SETS}
        for name, gradients in parts:
            kept[name].update({n: g.to(kind) for n, g in gradients.items()})
        return GradientStore(metadata, {**kept, "weight": copies}, {})
    with atomic_folder(path) as part:
        numbers = dict.fromkeys(SETS, 0)
        for name, gradients in parts:
            file = part / f"{name}-{numbers[name]:05d}.safetensors"
            stored = {n: g.to(kind).contiguous() for n, g in gradients.items()}
            save_tensors(file, stored, {"format": FORMAT})
            numbers[name] += 1
        if copies:
            save_tensors(part / "weight-00000.safetensors", copies, {"format": FORMAT})
        write_json(part / "store.json", metadata)
    return GradientStore.open(path)
