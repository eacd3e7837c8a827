"""The engine ``stream``: gradients of a model of which one block is in memory at a time.

Nothing here knows an architecture. The model's own forward runs with its blocks replaced: what it
would hand to each block is recorded once, and each block is then called with exactly that. The
weights of a block are read twice, once to go forward, once to go back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wagle.attribution.gradients.passes import Inputs, Pass, Sums, check_loss, linear_layers
from wagle.attribution.gradients.sink import Sink
from wagle.compat.torch import leaf_of
from wagle.model.loading import empty_model
from wagle.model.scoring import answer_nll
from wagle.model.structure import DTYPES, find_blocks, placed, precision, to_device, without_dropout
from wagle.model.weights import Weights, place_buffers
from wagle.system.errors import WagleError
from wagle.system.memory import Spill, give_memory_back
from wagle.system.progress import Bar

_IN_MEMORY = 64 << 20  # bytes of activations, before they go to a file


@dataclass(frozen=True)
class Job:
    """How to compute.

    Attributes:
        batch_tokens: padded tokens per backward pass.
        precision: of the matrix products, a name in DTYPES.
        dtype: in which the weights are held, a name in DTYPES.
        device: where to compute.
        attention: which attention code, as in ``load_model``.
    """

    batch_tokens: int = 512
    precision: str = "float32"
    dtype: str = "float32"
    device: str = "cpu"
    attention: str = "auto"


class _Enough(Exception):
    """Leaves a forward pass once all that is wanted of it was seen."""


def stream(model: PreTrainedModel | Path, passes: Sequence[Pass], job: Job, sink: Sink) -> None:
    """One block in memory: forward once, keeping what enters each block, then back from the head.

    Peak memory is the largest of stem, block and head, whatever the depth; the arithmetic is 4/3
    of that of ``whole``. Finished blocks are in the sink: after a kill only the way forward and
    the head are computed again.
    """
    assert isinstance(model, Path)
    with contextlib.ExitStack() as stack:
        run = _Stream(model, passes, job, sink, stack)
        run.record()
        run.forward()
        give_memory_back()  # each step has sizes of its own
        if not any(which.backward for which in passes):
            return
        run.head()
        give_memory_back()
        for block in reversed(range(run.resume())):
            run.backward(block)
        give_memory_back()
        run.stem()


@dataclass
class _Batch:
    """One batch of one pass, and what the model hands to each block beside the hidden states."""

    which: int  # the pass
    number: int
    batch: dict[str, Any]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def key(self) -> str:
        return f"{self.which} {self.number}"

    @property
    def records(self) -> int:
        return len(self.batch["index"])


class _Stream:
    """One run of the engine: what its steps share."""

    def __init__(
        self,
        folder: Path,
        passes: Sequence[Pass],
        job: Job,
        sink: Sink,
        stack: contextlib.ExitStack,
    ) -> None:
        self.folder, self.passes, self.job, self.sink = folder, passes, job, sink
        self.device, self.dtype = torch.device(job.device), DTYPES[job.dtype]
        self.model = empty_model(folder, job.attention, job.dtype)
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
        self.weights = Weights(folder)  # a thread reads: not with the model that computes here
        stack.callback(self.weights.close)
        place_buffers(self.model, self.weights, self.device)
        self.spill = Spill(_IN_MEMORY, sink.folder)
        stack.callback(self.spill.close)
        stack.enter_context(without_dropout(self.model))
        self.pool = stack.enter_context(ThreadPoolExecutor(1))
        self.next: tuple[int, Future[dict[str, Tensor]]] | None = None
        self.batches = [
            _Batch(p, i, batch, [])
            for p, which in enumerate(passes)
            for i, batch in enumerate(which.batches(job.batch_tokens))
        ]
        self.keyword = False  # whether a block gets its hidden states by keyword
        self.tuples = False  # whether a block returns a tuple
        self.early: list[str] = []  # parameters of the stem
        self.tied: set[str] = set()  # those that the head uses too
        self.carry: dict[str, Tensor] = {}  # d(loss)/d(what enters the last block that is done)
        steps = sum(one.records for one in self.batches) * len(self.blocks)
        self.bar = stack.enter_context(Bar("gradients", 2 * steps))

    def of(self, which: int) -> list[_Batch]:
        """The batches of one pass."""
        return [one for one in self.batches if one.which == which]

    # -----------------------------------------------------------------------------------------
    # Weights

    def load(self, block: int, upcoming: int) -> dict[str, Tensor]:
        """The weights of a block, while those of the ``upcoming`` one are read in a thread."""
        if self.next is None or self.next[0] != block:
            self.next = (block, self.pool.submit(self._read, block))
        found = self.next[1].result()
        self.next = None
        if 0 <= upcoming < len(self.blocks) and upcoming != block:
            self.next = (upcoming, self.pool.submit(self._read, upcoming))
        return {n: t.to(self.device, non_blocking=True) for n, t in found.items()}

    def _read(self, block: int) -> dict[str, Tensor]:
        found = self.weights.load(self.names[block], self.dtype)
        if self.device.type == "cuda":
            found = {n: t.pin_memory() for n, t in found.items()}
        return found

    @contextlib.contextmanager
    def around(self) -> Iterator[dict[str, nn.Parameter]]:
        """Hold what lies before and after the blocks.

        On a CPU these are memory maps, so of an embedding only the rows that are used are read.
        """
        weights = Weights(self.folder)
        try:
            tensors = {n: weights.get(n).to(self.device, self.dtype) for n in self.outer}
            with placed(self.model, tensors) as parameters:
                yield parameters
        finally:
            weights.close()

    # -----------------------------------------------------------------------------------------
    # The model's own forward, with its blocks replaced

    @contextlib.contextmanager
    def replaced(self, shims: Callable[[int], Callable[..., Any]]) -> Iterator[None]:
        """Let block i answer with ``shims(i)``; all else about it stays what it is."""
        for i, block in enumerate(self.blocks):
            block.forward = shims(i)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward

    def answer(self, hidden: Tensor) -> Any:
        """``hidden`` in the form in which a block returns it."""
        return (hidden,) if self.tuples else hidden

    def run(self, one: _Batch) -> Tensor:
        """The model's forward on a batch, with the blocks as they are now: (B,) mean NLLs."""
        with precision(self.device, self.job.precision):
            nll = answer_nll(self.model, to_device(one.batch, self.device)).nll_mean
        check_loss(nll, one.batch, self.passes[one.which].tokens)
        return nll

    def call(self, block: int, one: _Batch, hidden: Tensor) -> Tensor:
        """One block on one batch, with the arguments that the model's own forward gives it."""
        args, kwargs = one.calls[block]
        with precision(self.device, self.job.precision):
            if self.keyword:
                found = self.blocks[block](*args, hidden_states=hidden, **kwargs)
            else:
                found = self.blocks[block](hidden, *args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    # -----------------------------------------------------------------------------------------
    # The five steps

    def record(self) -> None:
        """Run the stem on every batch: keep its output, and what each block will be given."""
        with self.around() as parameters:
            for position, one in enumerate(self.batches):
                hidden = self._record(one, first=position == 0)
                if position == 0:
                    reached = {id(p) for p in _reached(hidden)}
                    self.early = [n for n, p in parameters.items() if id(p) in reached]
                self.spill[0, one.key] = hidden

    def _record(self, one: _Batch, first: bool) -> Tensor:
        entered: list[Tensor] = []

        def shim(block: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                self.keyword = "hidden_states" in kwargs
                hidden = kwargs.pop("hidden_states") if self.keyword else args[0]
                given = (args if self.keyword else args[1:], kwargs)
                one.calls.append(given)
                entered.append(hidden)
                if first:
                    self._check_given(given)
                    if block == 0:
                        self._look(one, hidden)
                if block == len(self.blocks) - 1:
                    raise _Enough
                # a leaf: what a later block is given and was computed from it can be told
                return self.answer(hidden.detach().requires_grad_(first))

            return forward

        with self.replaced(shim), torch.set_grad_enabled(first), contextlib.suppress(_Enough):
            self.run(one)
        return entered[0]

    def _check_given(self, given: object) -> None:
        """Refuse models whose blocks are given more that depends on weights than hidden states."""
        if any(t.requires_grad for t in _tensors(given)):
            raise WagleError(
                f"{type(self.model).__name__} hands its blocks more than hidden states that depends "
                "on weights; use engine: whole"
            )

    def _look(self, one: _Batch, hidden: Tensor) -> None:
        """Find out what a block returns, by calling the first."""
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

    def forward(self) -> None:
        """Go through the blocks once, keeping what enters each of them."""
        last = len(self.blocks) - 1
        for block in range(last + 1):
            with placed(self.model, self.load(block, block + 1)), torch.no_grad():
                for p, which in enumerate(self.passes):
                    inputs = None
                    with contextlib.ExitStack() as stack:
                        if "inputs" in which.kinds:
                            inputs = Inputs(which, self._layers(block))
                            stack.enter_context(inputs.hooked())
                        for one in self.of(p):
                            self._forward(block, one, inputs)
                    if inputs is not None:
                        self.sink.add(f"{block:05d}", inputs.finish())

    def _layers(self, block: int) -> dict[str, nn.Module]:
        own = set(self.names[block])
        return {n: layer for n, layer in linear_layers(self.model).items() if n in own}

    def _forward(self, block: int, one: _Batch, inputs: Inputs | None) -> None:
        if inputs is not None:
            inputs.real = one.batch["attention_mask"].to(self.device)
        hidden = self.spill[block, one.key].to(self.device)
        found = self.call(block, one, hidden)
        if not self.passes[one.which].backward:
            del self.spill[block, one.key]
        self.spill[block + 1, one.key] = found
        self.bar.advance(one.records)

    def head(self) -> None:
        """From what leaves the last block to the loss and back: the gradients of the head."""
        with self.around() as parameters:
            late = [n for n in parameters if n not in self.early]
            for p, which in enumerate(self.passes):
                if not which.backward:
                    continue
                self.sink.wait()  # an embedding of another pass beside this one would be the peak
                sums = Sums(which, parameters)
                for one in self.of(p):
                    self.carry[one.key] = self._head(one)
                    sums.share = one.records / len(which.tokens)
                    self.tied |= {n for n in self.early if parameters[n].grad is not None}
                    if "square" in which.kinds:  # of a tied weight: later, with its other use
                        for n in self.early:
                            parameters[n].grad = None
                    for n, parameter in parameters.items():
                        sums.take(n, parameter)
                for quantity, found in sums.found.items():
                    for n in self.tied & set(found):
                        self.spill[quantity, n] = found.pop(n)
                self.sink.add("head", sums.finish(late))

    def _head(self, one: _Batch) -> Tensor:
        """Back from the loss of a batch to what leaves the last block."""
        last = len(self.blocks) - 1
        leaf = self.spill[last + 1, one.key].to(self.device).detach().requires_grad_()

        def shim(block: int) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                hidden = kwargs["hidden_states"] if self.keyword else args[0]
                return self.answer(leaf if block == last else hidden)

            return forward

        with self.replaced(shim), torch.enable_grad():
            self.run(one).mean().backward()
        assert leaf.grad is not None
        return leaf.grad

    def resume(self) -> int:
        """How many blocks are left: all of them, or those that a killed run had not finished."""
        kept = self.sink.kept("carry")
        if kept is None:
            return len(self.blocks)
        self.carry = {key: tensor.to(self.device) for key, tensor in kept[0].items()}
        return int(kept[1]["block"])

    def backward(self, block: int) -> None:
        """One block, computed again and back through: its gradients are finished."""
        with placed(self.model, self.load(block, block - 1)) as parameters, torch.enable_grad():
            for p, which in enumerate(self.passes):
                if not which.backward:
                    continue
                sums = Sums(which, parameters)
                with sums.hooked():
                    for one in self.of(p):
                        sums.share = one.records / len(which.tokens)
                        hidden = self.spill[block, one.key].to(self.device)
                        hidden = hidden.detach().requires_grad_()
                        self.call(block, one, hidden).backward(self.carry[one.key])
                        assert hidden.grad is not None
                        self.carry[one.key] = hidden.grad
                        del self.spill[block, one.key]
                        self.bar.advance(one.records)
                self.sink.add(f"{block:05d}", sums.finish())
        self.sink.keep("carry", dict(self.carry), {"block": block})

    def stem(self) -> None:
        """Back through the stem; a tied weight gets the sum of its two uses."""
        if not self.early:
            return
        with self.around() as around:
            parameters = {n: around[n] for n in self.early}
            for p, which in enumerate(self.passes):
                if not which.backward:
                    continue
                self.sink.wait()
                sums = Sums(which, parameters)
                squares = "square" in which.kinds
                if not squares:
                    sums.start(
                        {q: {n: self.spill.pop((q, n)) for n in self.tied} for q in sums.found}
                    )
                for one in self.of(p):
                    if squares and self.tied:
                        self._head(one)
                    self._stem(one).backward(self.carry[one.key])
                    sums.share = one.records / len(which.tokens)
                    for n, parameter in parameters.items():
                        sums.take(n, parameter)
                self.sink.add("stem", sums.finish())

    def _stem(self, one: _Batch) -> Tensor:
        entered: list[Tensor] = []

        def forward(*args: Any, **kwargs: Any) -> Any:
            entered.append(kwargs["hidden_states"] if self.keyword else args[0])
            raise _Enough

        with self.replaced(lambda _: forward), torch.enable_grad(), contextlib.suppress(_Enough):
            self.run(one)
        return entered[0]


def _check_shared(model: nn.Module, where: str) -> None:
    """Refuse blocks that share weights with each other or with what lies around them."""
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside = name.startswith(f"{where}.")
        owner = name[len(where) + 1 :].split(".")[0] if inside else ""
        if owners.setdefault(id(parameter), owner) != owner:
            raise WagleError(
                f"{name} is shared between blocks of {type(model).__name__}; use engine: whole"
            )


def _tensors(given: object) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        for value in given.values():
            yield from _tensors(value)
    elif isinstance(given, list | tuple):
        for value in given:
            yield from _tensors(value)


def _reached(output: Tensor) -> list[Tensor]:
    """The leaves that a tensor was computed from."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    left = [output.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = leaf_of(node)
        if leaf is not None:
            found.append(leaf)
        left += [following for following, _ in node.next_functions]
    return found
