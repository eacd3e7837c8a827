"""A model with one block in memory at a time.

Nothing here depends on an architecture: the model's own forward runs with its blocks replaced, and
a block is called with exactly what that forward passes to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wagle.attribution.gradients.passes import Job, check_loss
from wagle.data.tokens import Tokens
from wagle.model.loading import empty_model
from wagle.model.scoring import answer_nll
from wagle.model.structure import DTYPES, find_blocks, placed, precision, to_device, without_dropout
from wagle.model.weights import Weights, place_buffers
from wagle.system.errors import WagleError
from wagle.system.processes.threads import torch_threads


@dataclass
class Batch:
    """One batch of one pass, and what the model passes to each block besides the hidden states.

    Attributes:
        which: the number of the pass.
        number: the number of the batch in its pass.
        batch: the padded records.
        calls: per block, the other arguments of its forward.
    """

    which: int
    number: int
    batch: dict[str, Any]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def key(self) -> str:
        """The key under which its activations are kept."""
        return f"{self.which} {self.number}"

    @property
    def records(self) -> int:
        """How many records it holds."""
        return len(self.batch["index"])


class Blocks:
    """The model in a folder: its structure, and the weights of the block being computed.

    Attributes:
        names: per block, its parameters.
        keyword: whether a block receives its hidden states by keyword.
        tuples: whether a block returns a tuple.
    """

    def __init__(self, folder: Path, job: Job, stack: contextlib.ExitStack) -> None:
        self.folder, self.job = folder, job
        self.device, self.dtype = torch.device(job.device), DTYPES[job.dtype]
        self.model = empty_model(folder, job.attention, job.dtype, trust_remote_code=job.trust)
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
        self._outer = [name for name in every if not name.startswith(f"{where}.")]
        self._weights = Weights(folder)  # read in a thread: not with the model that computes here
        stack.callback(self._weights.close)
        place_buffers(self.model, self._weights, self.device)
        stack.enter_context(without_dropout(self.model))
        self._pool = stack.enter_context(torch_threads(1))
        self._next: tuple[int, Future[dict[str, Tensor]]] | None = None
        self.keyword = False
        self.tuples = False

    def __len__(self) -> int:
        return len(self.blocks)

    # -----------------------------------------------------------------------------------------
    # Weights

    def load(self, block: int, upcoming: int) -> dict[str, Tensor]:
        """The weights of a block; those of the ``upcoming`` one are read meanwhile in a thread."""
        if self._next is None or self._next[0] != block:
            self._next = (block, self._pool.submit(self._read, block))
        found = self._next[1].result()
        self._next = None
        if 0 <= upcoming < len(self.blocks) and upcoming != block:
            self._next = (upcoming, self._pool.submit(self._read, upcoming))
        return {n: t.to(self.device, non_blocking=True) for n, t in found.items()}

    def _read(self, block: int) -> dict[str, Tensor]:
        found = self._weights.load(self.names[block], self.dtype)
        if self.device.type == "cuda":
            found = {n: t.pin_memory() for n, t in found.items()}
        return found

    @contextlib.contextmanager
    def around(self) -> Iterator[dict[str, nn.Parameter]]:
        """Hold the weights before and after the blocks.

        On a CPU these are memory maps, so only the rows of an embedding that are used are read.
        """
        weights = Weights(self.folder)
        try:
            tensors = {n: weights.get(n).to(self.device, self.dtype) for n in self._outer}
            with placed(self.model, tensors) as parameters:
                yield parameters
        finally:
            weights.close()

    # -----------------------------------------------------------------------------------------
    # The model's own forward, with its blocks replaced

    @contextlib.contextmanager
    def replaced(self, shims: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
        """Let ``shims(i)`` answer in place of block i, which otherwise stays as it is."""
        for i, block in enumerate(self.blocks):
            block.forward = shims(i)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def entered(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The hidden states among the arguments of a block."""
        found: Tensor = kwargs["hidden_states"] if self.keyword else args[0]
        return found

    def answer(self, hidden: Tensor) -> Any:
        """``hidden`` in the form in which a block returns it."""
        return (hidden,) if self.tuples else hidden

    def loss(self, one: Batch, tokens: Sequence[Tokens]) -> Tensor:
        """Run the model's forward on a batch, with the blocks as they are now: (B,) mean NLLs."""
        with precision(self.device, self.job.precision):
            nll = answer_nll(self.model, to_device(one.batch, self.device)).nll_mean
        check_loss(nll, one.batch, tokens)
        return nll

    def call(self, block: int, one: Batch, hidden: Tensor) -> Tensor:
        """Run one block on one batch, with the arguments that the model's own forward gives it."""
        args, kwargs = one.calls[block]
        with precision(self.device, self.job.precision):
            if self.keyword:
                found = self.blocks[block](*args, hidden_states=hidden, **kwargs)
            else:
                found = self.blocks[block](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    def look(self, one: Batch, hidden: Tensor) -> None:
        """Find out what a block returns, by calling the first while its forward is replaced."""
        (args, kwargs), block = one.calls[0], self.blocks[0]
        hidden = hidden.detach()
        with placed(self.model, self.load(0, 0)), torch.no_grad():
            own = type(block).forward
            with precision(self.device, self.job.precision):
                found = (
                    own(block, *args, hidden_states=hidden, **kwargs)
                    if self.keyword
                    else own(block, hidden, *args, **kwargs)
                )
        self.tuples = not isinstance(found, Tensor)


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
