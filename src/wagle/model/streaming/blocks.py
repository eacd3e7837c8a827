"""The blocks of a model in a folder: their structure, and their weights, read one block at a time.

Nothing here depends on an architecture: the model's own forward runs with its blocks replaced, and
a block is called with exactly what that forward passes to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import Tensor, nn

from wagle.model.loading import empty_model
from wagle.model.structure import DTYPES, find_blocks, place_parameters, placed
from wagle.model.weights import Weights, place_buffers
from wagle.system.errors import WagleError
from wagle.system.processes.threads import torch_threads


class StoredBlocks:
    """A model without weights, and the weights of the block that is wanted, read ahead in a thread.

    Args:
        folder: a local model folder with safetensors.
        dtype: the dtype of the weights in memory, a name in DTYPES.
        attention: as in ``load_model``.
        device: where the weights go.
        stack: closes the files.
        trust: whether the code of the folder may run.

    Attributes:
        model: the model; its parameters are on the meta device.
        blocks: its blocks.
        names: per block, its parameters.
        outer: the parameters of stem and head.
        read: bytes of weights read for blocks so far.
        reuse: whether a block may be read into the memory of one that was loaded before: nothing keeps
            its tensors then. Fresh memory for every block costs a good part of its reading.

    Raises:
        WagleError: the model has no list of blocks, or its blocks share weights.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str,
        attention: str,
        device: torch.device,
        stack: contextlib.ExitStack,
        trust: bool = False,
    ) -> None:
        self.folder, self.device, self.dtype = folder, device, DTYPES[dtype]
        self.model = empty_model(folder, attention, dtype, trust_remote_code=trust)
        try:
            where, self.blocks = find_blocks(self.model)
        except WagleError as error:
            raise WagleError(f"{error}; use engine: whole") from None
        _check_shared(self.model, where)
        every = [name for name, _ in self.model.named_parameters()]
        self.names = [
            [name for name in every if name.startswith(f"{where}.{i}.")]
            for i in range(len(self.blocks))
        ]
        self.outer = [name for name in every if not name.startswith(f"{where}.")]
        self.read, self.reuse = 0, False
        self._weights = Weights(folder)  # read in a thread: not with the model that computes here
        stack.callback(self._weights.close)
        place_buffers(self.model, self._weights, self.device)
        self._pool = stack.enter_context(torch_threads(1))
        self._held: tuple[int, dict[str, Tensor]] | None = None
        self._next: tuple[int, Future[dict[str, Tensor]]] | None = None

    def __len__(self) -> int:
        return len(self.blocks)

    def load(self, block: int, upcoming: int) -> dict[str, Tensor]:
        """The weights of a block; those of the ``upcoming`` one are read meanwhile in a thread.

        A block that was loaded last is not read again: the tensors are the same.
        """
        spare: list[Tensor] = []
        if self._held is not None and self._held[0] == block:
            found = self._held[1]
        else:
            if self._held is not None and self.reuse and self.device.type == "cpu":
                spare = [*self._held[1].values()]
            self._held = None  # two blocks at once, never three
            if self._next is None or self._next[0] != block:
                self._next = (block, self._pool.submit(self._read, block, spare))
                spare = []
            found = {
                n: t.to(self.device, non_blocking=True) for n, t in self._next[1].result().items()
            }
            self._held, self._next = (block, found), None
        if self._next is None and 0 <= upcoming < len(self.blocks) and upcoming != block:
            self._next = (upcoming, self._pool.submit(self._read, upcoming, spare))
        return found

    def fresh(self, block: int) -> dict[str, Tensor]:
        """The weights of a block in memory of their own."""
        weights = Weights(self.folder)
        try:
            return weights.load(self.names[block], self.dtype)
        finally:
            weights.close()

    def let_go(self) -> None:
        """Forget the block that was loaded last: the next time it is read again."""
        self._held = None

    def _read(self, block: int, spare: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """Read a block, into the memory of ``spare`` if that has its shapes."""
        names = self.names[block]
        into = dict(zip(names, spare, strict=True)) if self._fit(names, spare) else None
        found = self._weights.load(names, self.dtype, into)
        self.read += sum(t.nbytes for t in found.values())
        if self.device.type == "cuda":
            found = {n: t.pin_memory() for n, t in found.items()}
        return found

    def _fit(self, names: Sequence[str], spare: Sequence[Tensor]) -> bool:
        """Whether the parameters of a block have the shapes of these tensors."""
        if not spare:
            return False
        shapes = [self.model.get_parameter(name).shape for name in names]
        return shapes == [tensor.shape for tensor in spare]

    @contextlib.contextmanager
    def around(self) -> Iterator[dict[str, nn.Parameter]]:
        """Hold the weights before and after the blocks.

        On a CPU these are memory maps, so only the rows of an embedding that are used are read.
        """
        weights = Weights(self.folder)
        try:
            with placed(self.model, self._around(weights)) as parameters:
                yield parameters
        finally:
            weights.close()

    def hold_around(self, stack: contextlib.ExitStack) -> None:
        """Hold them until the stack is closed."""
        weights = Weights(self.folder)
        stack.callback(weights.close)
        place_parameters(self.model, self._around(weights))

    def _around(self, weights: Weights) -> dict[str, Tensor]:
        return {n: weights.get(n).to(self.device, self.dtype) for n in self.outer}


def _check_shared(model: nn.Module, where: str) -> None:
    """Refuse blocks that share weights with each other or with the layers around them."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside = name.startswith(f"{where}.")
        owner = name[len(where) + 1 :].split(".")[0] if inside else ""
        if owners.setdefault(id(parameter), owner) != owner:
            raise WagleError(
                f"{name} is shared between blocks of {type(model).__name__}; use engine: whole"
            )
