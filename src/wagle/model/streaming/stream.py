"""A live model with one block in memory: its forward, and the way back through its blocks.

Wherever the model's own forward reaches a block, the block's weights are read, the overlay is laid
over them, the block is computed, and the weights are dropped. With gradients enabled, what enters
each block is kept, and the graph ends behind each block: the backward pass of a loss stops there,
and ``backward`` then goes through the blocks once, from last to first, for all of them together.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wagle.model.streaming.blocks import StoredBlocks
from wagle.model.streaming.in_step import Together, Visit, autocasts
from wagle.model.streaming.traces import Call, Into, Take, Trace, Way
from wagle.system.mapped import let_go, will_need

_CHUNK = 1 << 22  # positions widened at a time


@dataclass(frozen=True, eq=False)
class Laid:
    """The current values of a parameter's selected entries.

    Attributes:
        index: (k,) int32, their places in the flattened parameter; None: all of it.
        values: (k,) in the model's dtype.
    """

    index: Tensor | None
    values: Tensor

    def over(self, flat: Tensor, start: int = 0) -> None:
        """Lay the values over a flattened parameter, or over the part of it from ``start`` on."""
        if self.index is None:
            flat.copy_(self.values[start : start + len(flat)])
        else:
            ends = torch.tensor([start, start + len(flat)], dtype=self.index.dtype)
            first, last = torch.searchsorted(self.index, ends).tolist()
            own = (part[first:last].split(_CHUNK) for part in (self.index, self.values))
            for index, values in zip(*own, strict=True):
                places = index.long().sub_(start).to(flat.device)
                flat.index_copy_(0, places, values.to(flat.device, flat.dtype))
        let_go(self.index, self.values)


class Stream:
    """What keeps the blocks of one live model on disk.

    Args:
        stored: the model without the weights of its blocks.
        stack: what ``close`` closes.

    Attributes:
        overlay: the current values of selected weights in blocks, by parameter.
        trained: the parameters of blocks that need a gradient.
        owned: the parameters of stem and head that are in memory of their own.
        sweeps: how often a forward pass, of one job or of many in step, came to the first block.
    """

    def __init__(self, stored: StoredBlocks, stack: contextlib.ExitStack) -> None:
        self._stored, self._stack = stored, stack
        stored.reuse = True
        self.overlay: dict[str, Laid] = {}
        self.trained = {name for names in stored.names for name in names}
        self.owned: set[str] = set()
        self.sweeps = 0
        self._homes = _homes(stored)
        self._laid: dict[str, Laid] = {}  # over the weights that are held
        self._way = Way(stored.model, stored.device)
        stack.callback(self._way.close)
        self._together: Together[Any] | None = None
        self._under_way: dict[int, Trace] = {}  # by thread
        for i, block in enumerate(stored.blocks):
            block.forward = partial(self._visit, i)

    # ----- what it is -----

    @property
    def folder(self) -> Path:
        """The model folder, which nothing here changes."""
        return self._stored.folder

    @property
    def names(self) -> list[list[str]]:
        """Per block, the names of its parameters."""
        return self._stored.names

    @property
    def outer(self) -> list[str]:
        """The names of the parameters of stem and head."""
        return self._stored.outer

    @property
    def read(self) -> int:
        """Bytes of blocks' weights read so far."""
        return self._stored.read

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._stored.device

    def own(self, name: str) -> nn.Parameter:
        """A parameter of stem or head in memory of its own, which may be changed in place."""
        parameter = self._stored.model.get_parameter(name)
        parameter.data = parameter.data.clone()
        self.owned.add(name)
        return parameter

    def weights(self, block: int) -> dict[str, Tensor]:
        """A block's weights as the folder has them, without the overlay, in fresh memory."""
        return self._stored.fresh(block)

    def close(self) -> None:
        """Release the files; the model cannot be called any more."""
        self._stack.close()

    # ----- forward -----

    def in_step(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run jobs that call the model; they go through its blocks together."""
        if self._together is not None or len(jobs) < 2:  # a job's own jobs, or nothing to share
            return [job() for job in jobs]
        self._together = Together(self, jobs)
        try:
            return self._together.run()
        finally:
            self._together = None
            self._under_way.clear()

    def serve(self, block: int, visits: Sequence[Visit], *, more: bool) -> None:
        """Compute a block for all that wait for it; ``more`` says whether others are elsewhere."""
        self.sweeps += block == 0
        last = block + 1 == len(self._stored)
        with self._placed(block, 0 if last and more else block + 1, grads=False):
            for visit in visits:
                visit.compute()

    def _visit(self, block: int, *args: Any, **kwargs: Any) -> Any:
        """What a block's forward does: wait for the others, if there are any."""
        call = Call(self._stored.blocks[block], args, kwargs, autocasts())
        visit = Visit(block, self._work(block, call))
        if self._together is not None and self._together.runs_here():
            return self._together.arrive(visit)
        self.serve(block, [visit], more=False)
        if visit.error is not None:
            raise visit.error
        return visit.found

    def _work(self, block: int, call: Call) -> Callable[[], Any]:
        """The computation of a block for one call, from another thread, with the modes of now."""
        inference = torch.is_inference_mode_enabled()
        trace = self._trace(block, call) if torch.is_grad_enabled() else None

        def work() -> Any:
            with torch.inference_mode(inference), torch.no_grad():
                found = call.run(call.hidden)
            return found if trace is None else self._way.behind(trace, block, found)

        return work

    def _trace(self, block: int, call: Call) -> Trace:
        """The trace of the pass that this thread is in, with what enters the block."""
        here = threading.get_ident()
        if block == 0:
            self._under_way[here] = self._way.begin()
        trace = self._under_way[here]
        if block + 1 == len(self._stored):
            del self._under_way[here]
        self._way.enter(trace, block, call)
        return trace

    # ----- the way back -----

    def collect(self, slot: str) -> None:
        """Take over, under a name, the gradients at which backward passes ended since last time."""
        self._way.collect(slot)

    def backward(self, take: Take, into: Into | None = None) -> None:
        """Go through the blocks from last to first, with all gradients that were collected.

        Args:
            take: called with the name of a parameter, the parameter, whose ``grad`` is complete for
                one pass, and the slot; it takes the gradient and sets it to None.
            into: a context in which the gradients of the stem belong to a slot; its parameters are
                ordinary ones.
        """
        trained = [any(name in self.trained for name in names) for names in self.names]
        first = trained.index(True) if True in trained else len(trained)
        with self._way.back(into) as traces:
            for block in reversed(range(len(self._stored))):
                here = [trace for trace in traces if trace.needs(block, first)]
                if not here:
                    continue
                further = block > first or any(at < block for t in here for at in t.entered)
                upcoming = block - 1 if further else -1
                with self._placed(block, upcoming, grads=True) as parameters:
                    for trace in here:
                        self._way.through(trace, block, first, parameters, take)

    def forget(self) -> None:
        """Drop what was collected and has not gone back, as after an error."""
        self._way.forget()

    # ----- weights -----

    @contextlib.contextmanager
    def _placed(
        self, block: int, upcoming: int, *, grads: bool
    ) -> Iterator[dict[str, nn.Parameter]]:
        """Hold a block's weights with the overlay."""
        if any(self.overlay.get(name) is not laid for name, laid in self._laid.items()):
            self._stored.let_go()  # what lies over the weights held is no longer to be there
        tensors = self._stored.load(block, upcoming)
        for name in self.names[upcoming] if 0 <= upcoming < len(self._stored) else ():
            if (over := self.overlay.get(name)) is not None:
                will_need(over.index, over.values)
        self._laid = {name: self.overlay[name] for name in tensors if name in self.overlay}
        for name, laid in self._laid.items():
            laid.over(tensors[name].view(-1))
        homes, parameters = self._homes[block], {}
        for name, tensor in tensors.items():
            wanted = grads and name in self.trained
            parameters[name] = nn.Parameter(tensor, requires_grad=wanted)
            for module, leaf, _ in homes[name]:
                setattr(module, leaf, parameters[name])
        try:
            yield parameters
        finally:
            for places in homes.values():
                for module, leaf, empty in places:
                    setattr(module, leaf, empty)


def _homes(stored: StoredBlocks) -> list[dict[str, list[tuple[nn.Module, str, nn.Parameter]]]]:
    """Per block, where in the model each of its parameters is, and the empty one there."""
    found = []
    for block, names in zip(stored.blocks, stored.names, strict=True):
        empty = {id(stored.model.get_parameter(name)): name for name in names}
        homes: dict[str, list[tuple[nn.Module, str, nn.Parameter]]] = {name: [] for name in names}
        for module in block.modules():
            for leaf, held in module.named_parameters(recurse=False, remove_duplicate=False):
                homes[empty[id(held)]].append((module, leaf, held))
        found.append(homes)
    return found
