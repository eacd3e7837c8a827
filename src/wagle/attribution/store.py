"""The gradient store: what was measured for every weight on the forget set and the retain set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from wagle.attribution.scoring.masks import mask_from_scores
from wagle.mask.mask import Mask
from wagle.model.weights import Weights, fingerprint, weight_files
from wagle.system.errors import WagleError
from wagle.system.reading import read_json
from wagle.system.tensors import TensorFile

FORMAT = "wagle-gradients/2"


def weight_stamps(folder: str | Path) -> list[list[Any]]:
    """Name, size and modification time of a model's weight files, to notice when they change."""
    stats = [(file.name, file.stat()) for file in weight_files(folder)]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


class GradientStore:
    """Gradients by parameter, in memory or in a folder, and the weights they belong to.

    A *quantity* is a number per weight: ``weight`` itself, ``grad_forget``, ``grad_retain`` and
    anything else that was collected (``quantities``); a score names them as its parameters.

    Attributes:
        metadata: format, versions, model fingerprint, engine, reduction, dtype, record ids.
        shapes: the shape of every parameter that requires a gradient, in parameter order.
        quantities: what was collected, apart from ``weight``, which is always there.
        transposed: parameters whose rows (outputs) are the last dimension, as in GPT-2's Conv1D.
    """

    def __init__(
        self,
        metadata: dict[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        files: Mapping[str, Sequence[Path]],
    ) -> None:
        self.metadata = metadata
        self.shapes = {name: tuple(shape) for name, shape in metadata["parameters"]}
        self.quantities: tuple[str, ...] = tuple(metadata["quantities"])
        self.transposed = frozenset(metadata["transposed"])
        self._tensors = {quantity: dict(found) for quantity, found in tensors.items()}
        self._homes: dict[str, dict[str, TensorFile]] = {}
        for quantity, paths in files.items():
            homes: dict[str, TensorFile] = {}
            for path in paths:
                opened = TensorFile(path, "gradient store file")
                homes.update(dict.fromkeys(opened.names, opened))
            self._homes[quantity] = homes
        folder = metadata["model"]["folder"]
        self._weights = Weights(folder) if folder is not None else None

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model whose gradients these are."""
        return str(self.metadata["model"]["fingerprint"])

    def size(self, name: str) -> int:
        """How many weights the parameter ``name`` has."""
        return math.prod(self.shapes[name])

    def has(self, quantity: str, name: str) -> bool:
        """Whether ``quantity`` was collected for the parameter ``name``."""
        if quantity == "weight" and self._weights is not None:
            return name in self.shapes
        return name in self._tensors.get(quantity, {}) or name in self._homes.get(quantity, {})

    def get(self, quantity: str, name: str) -> Tensor:
        """One whole tensor, as stored.

        Its shape is the parameter's; that of ``input_square`` broadcasts to it.
        """
        if name in self._tensors.get(quantity, {}):
            return self._tensors[quantity][name]
        if quantity == "weight" and self._weights is not None:
            return self._weights.get(name)
        return self._home(quantity, name).get(name)

    def read(self, quantity: str, name: str, start: int, stop: int) -> Tensor:
        """A quantity for weights ``start`` to ``stop`` of the flattened parameter, float32.

        Only that part is read, so memory does not grow with the model.
        """
        if quantity == "input_square":
            return self._inputs(name, start, stop)
        if name in self._tensors.get(quantity, {}):
            return self._tensors[quantity][name].reshape(-1)[start:stop].float()
        if quantity == "weight" and self._weights is not None:
            return self._weights.read(name, start, stop).float()
        return self._home(quantity, name).read(name, start, stop).float()

    def _inputs(self, name: str, start: int, stop: int) -> Tensor:
        shape = self.shapes[name]
        wide = math.prod(shape[1:])  # whole rows, then the part asked for
        first, last = start // wide, -(-stop // wide)
        found = self.get("input_square", name).float()
        rows = found if found.shape[0] == 1 else found[first:last]
        flat = rows.expand(last - first, *shape[1:]).reshape(-1)
        return flat[start - first * wide : stop - first * wide]

    def _home(self, quantity: str, name: str) -> TensorFile:
        home = self._homes.get(quantity, {}).get(name)
        if home is None:
            raise WagleError(f"the gradient store has no {quantity} for {name}; make it again")
        return home

    def select(self, **asked: Any) -> Mask:
        """What ``Mask.from_scores`` calls: it has the defaults, so every keyword is given here."""
        return mask_from_scores(self, **asked)

    def check_weights(self) -> None:
        """Refuse to score weights that changed since the gradients were computed.

        Files with the same size and time count as unchanged; others are read.
        """
        folder = self.metadata["model"]["folder"]
        if folder is None or weight_stamps(folder) == self.metadata["model"]["files"]:
            return
        if fingerprint(folder) != self.model_fingerprint:
            raise WagleError(
                f"{folder} is no longer the model of this gradient store; attribute it again"
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
        kinds = [*metadata["quantities"], *(() if metadata["model"]["folder"] else ("weight",))]
        files = {kind: sorted(folder.glob(f"{kind}-*.safetensors")) for kind in kinds}
        store = cls(metadata, {}, files)
        for kind in kinds:
            missing = [n for n in store.shapes if not store.has(kind, n)]
            if missing and kind != "input_square":
                raise WagleError(f"{path} lacks {kind} for {missing[0]}; make it again")
        return store
