"""The gradient store: what was measured for every weight on the forget set and the retain set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.masks import mask_from_scores
from wagle.mask.mask import Mask
from wagle.model.weights import Weights, fingerprint, weight_files
from wagle.system.errors import WagleError
from wagle.system.files.reading import one_line, read_json
from wagle.system.files.seals import content_digest
from wagle.system.files.tensors import MOST_DIMENSIONS, TensorFile

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
        self._digested = False  # stores of older versions have no digests
        self._unread = {home for homes in self._homes.values() for home in homes.values()}
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
            raise WagleError(
                f"the gradient store has no {quantity} for {one_line(name)}; make it again"
            )
        if home in self._unread:  # what is read next then comes from memory
            home.check(needed=self._digested)
            self._unread.discard(home)
        return home

    def select(self, **asked: Any) -> Mask:
        """What ``Mask.from_scores`` calls: it has the defaults, so every keyword is given here."""
        return mask_from_scores(self, **asked)

    def check_weights(self) -> None:
        """Refuse to score weights that changed since the gradients were computed.

        Files with the same size and time count as unchanged; others are read.
        """
        folder = self.metadata["model"]["folder"]
        if folder is None or weight_stamps(folder) == self.metadata["model"].get("files"):
            return
        if fingerprint(folder) != self.model_fingerprint:
            raise WagleError(
                f"{one_line(folder)} is no longer the model of this gradient store; attribute it again"
            )

    @classmethod
    def open(cls, path: str | Path) -> GradientStore:
        """Open a store that was saved with ``path=``."""
        folder = Path(path)
        if not (folder / "store.json").is_file():
            raise WagleError(f"{path} is not a gradient store; make one: wagle attribute RECIPE")
        metadata, digested = read_about(folder / "store.json")
        kinds = [*metadata["quantities"], *(() if metadata["model"]["folder"] else ("weight",))]
        files = {kind: sorted(folder.glob(f"{kind}-*.safetensors")) for kind in kinds}
        store = cls(metadata, {}, files)
        store._digested = digested
        for kind in kinds:
            missing = [n for n in store.shapes if not store.has(kind, n)]
            if missing and kind != "input_square":
                raise WagleError(f"{path} lacks {kind} for {one_line(missing[0])}; make it again")
            store._check_shapes(kind)
        return store

    def _check_shapes(self, kind: str) -> None:
        """Refuse files whose tensors do not have the shapes of the parameters."""
        for name, file in self._homes[kind].items():
            wanted, found = self.shapes.get(name), file.shape(name)
            if kind == "input_square" and wanted and len(found) == len(wanted):
                wanted = tuple(f if f == 1 else w for f, w in zip(found, wanted, strict=True))
            if found != wanted or not file.dtype(name).is_floating_point:
                raise WagleError(
                    f"{file.path} holds {kind} of {one_line(name[:80])} as {file.dtype(name)} "
                    f"{list(found)}, not of shape {wanted and list(wanted)}; make it again"
                )


def read_about(path: Path) -> tuple[dict[str, Any], bool]:
    """Read ``store.json``, which may be a stranger's: what readers rely on is checked.

    Returns:
        Its content, and whether it and the files beside it have digests.
    """
    found = read_json(path)
    if isinstance(found, dict) and found.get("format") != FORMAT:
        raise WagleError(
            f"{path.parent} has format {one_line(str(found.get('format'))[:80])}, not {FORMAT}"
        )
    told = found.pop("digest", None) if isinstance(found, dict) else None
    if told is not None and told != _digest_of(found):
        raise WagleError(f"{path} is corrupt: its digest does not match; make it again")
    match found:
        case {
            "parameters": [*parameters],
            "quantities": [*quantities],
            "transposed": [*transposed],
            "model": {"fingerprint": str(), "folder": str() | None},
            "records": {"forget": [*_], **_others},
        } if (
            all(_is_parameter(entry) for entry in parameters)
            and len({entry[0] for entry in parameters}) == len(parameters) > 0
            and all(isinstance(name, str) and name in COLLECTED for name in quantities)
            and all(isinstance(name, str) for name in transposed)
            and all(isinstance(ids, list) for ids in _others.values())
        ):
            return dict(found), told is not None
    raise WagleError(f"{path} is corrupt: invalid fields; make the gradient store again")


def _digest_of(found: dict[str, Any]) -> str | None:
    """The digest of a description; None of one that cannot have any."""
    try:
        return content_digest(found)
    except (ValueError, RecursionError):  # halves of characters
        return None


def _is_parameter(entry: Any) -> bool:
    match entry:
        case [str(), [*shape]] if len(shape) <= MOST_DIMENSIONS:
            return all(type(size) is int and 0 <= size < 1 << 60 for size in shape)
    return False
