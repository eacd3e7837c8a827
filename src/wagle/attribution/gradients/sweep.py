"""One pass of the engine ``whole``: the batches of a set, dealt out among the processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wagle.attribution.gradients.passes import (
    Inputs,
    Job,
    Pass,
    Sums,
    check_loss,
    linear_layers,
)
from wagle.attribution.gradients.sink import Sink
from wagle.model.scoring import answer_nll
from wagle.model.sharding import own_range
from wagle.model.structure import precision, to_device
from wagle.system.processes import group
from wagle.system.progress import track

T = TypeVar("T")
Batch = dict[str, Any]


class Sweep:
    """One pass over the records of a set, with the model in memory.

    Args:
        model: whole on every process, or in shards.
        number: of the pass, to resume at.
        which: the pass.
        job: how to compute.
        sink: takes what is finished, and what is kept to resume from.
        before: sums that an earlier process kept.
        skip: how many batches they include.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        number: int,
        which: Pass,
        job: Job,
        sink: Sink,
        before: dict[str, Tensor],
        skip: int,
    ) -> None:
        self.model, self.number, self.which = model, number, which
        self.job, self.sink = job, sink
        self.sums = Sums(which, {n: p for n, p in model.named_parameters() if p.requires_grad})
        self.sums.start(unflatten(before, model.device, self.sums.found))
        self.inputs: Inputs | None = None
        if "inputs" in which.kinds:
            self.inputs = Inputs(which, linear_layers(model))
            quantity = self.inputs.quantity
            known = unflatten(before, model.device, {quantity: {}})
            self.inputs.found |= known[quantity]
        self.batches = which.batches(job.batch_tokens)
        self.done = skip
        self.between = True  # in the middle of a batch the sums hold only part of it

    def run(self) -> None:
        """Go through the batches that are left, and hand in the results."""
        with contextlib.ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.hooked())
            stack.enter_context(torch.set_grad_enabled(self.which.backward))
            try:
                rounds = in_rounds(self.batches[self.done :], alike=self.sums.alike)
                for some in track(rounds, f"{self.which.set} gradients", size=_in_round):
                    self._round(some)
            except KeyboardInterrupt:
                if self.between and group.world() == 1:
                    self._keep()
                raise
        self._add_up(everywhere=True)
        found = group.agreed(self.sums.finish)
        self.sink.add("00000", found, _ranges(self.model) if self.sums.sharded else None)
        if self.inputs:
            self.sink.add("00000", self.inputs.finish())
        self.sink.wait()

    @property
    def _parts(self) -> list[Sums | Inputs]:
        return [self.sums, *([self.inputs] if self.inputs else [])]

    def _round(self, some: Sequence[Batch | None]) -> None:
        """One batch on every process; about once a minute what there is so far is kept."""
        self.between = False
        group.agreed(partial(self._compute, some[group.rank()]))
        self.done += 1 if self.sums.alike else sum(one is not None for one in some)
        self.between = True
        if not self.sums.sharded and group.from_main(self.sink.due()):
            self._add_up(everywhere=False)
            self._keep()

    def _compute(self, batch: Batch | None) -> None:
        """Add a batch to the sums; of a sharded model, every process must run one."""
        if batch is None and not self.sums.sharded:  # the other processes have one more
            return
        batch, share = (self.batches[0], 0.0) if batch is None else (batch, 1.0)
        if self.inputs:
            counts = share == 1 and not (self.sums.alike and group.rank())
            self.inputs.real = batch["attention_mask"].to(self.model.device) * counts
        nll, total = self._losses(batch), len(self.which.tokens)
        if self.sums.sharded and not self.sums.alike:  # torch mixes the processes' gradients
            loss, self.sums.share = share * nll.sum(), 1 / total
        else:
            loss, self.sums.share = nll.mean(), share * _records(batch) / total
        if self.which.backward:
            loss.backward()

    def _losses(self, batch: Batch) -> Tensor:
        """The mean NLL of every record of a batch, (B,)."""
        device = self.model.device
        with precision(device, self.job.precision):
            nll = answer_nll(self.model, to_device(batch, device)).nll_mean
        check_loss(nll, batch, self.which.tokens)
        return nll

    def _add_up(self, *, everywhere: bool) -> None:
        """Add up what the processes have summed; only rank 0 has it afterwards, or all have."""
        for part in self._parts:
            part.add_up()
            if not everywhere and not group.main_process():
                part.clear()

    def _keep(self) -> None:
        told = {"pass": self.number, "batches": self.done}
        self.sink.keep("sums", flatten(self.sums, self.inputs), told)
        self.sink.wait()  # the sums are about to change


def _ranges(model: PreTrainedModel) -> dict[str, tuple[tuple[int, ...], int]]:
    """The whole shape of every parameter, and where this process's part of it begins."""
    return {n: (tuple(p.shape), own_range(p).start) for n, p in model.named_parameters()}


def in_rounds(batches: Sequence[T], *, alike: bool = False) -> list[list[T | None]]:
    """Batches in rounds, one for each process; None where the last round has no more.

    ``alike`` gives every process the same one.
    """
    size = group.world()
    if alike:
        return [[one] * size for one in batches]
    rounds = [list(batches[i : i + size]) for i in range(0, len(batches), size)]
    return [[*some, *[None] * (size - len(some))] for some in rounds]


def _in_round(some: Sequence[Batch | None]) -> int:
    """How many records a round takes care of."""
    return sum(_records(one) for one in {id(one): one for one in some if one is not None}.values())


def _records(batch: Batch) -> int:
    return len(batch["index"])


def flatten(sums: Sums, inputs: Inputs | None) -> dict[str, Tensor]:
    """The sums so far, keyed by quantity and parameter together."""
    found = {**sums.found, **({inputs.quantity: inputs.found} if inputs else {})}
    return {f"{q} {n}": t for q, tensors in found.items() for n, t in tensors.items()}


def unflatten(
    flat: dict[str, Tensor], device: torch.device, quantities: Any
) -> dict[str, dict[str, Tensor]]:
    """The reverse, for some quantities."""
    found: dict[str, dict[str, Tensor]] = {quantity: {} for quantity in quantities}
    for key, tensor in flat.items():
        quantity, name = key.split(" ", 1)
        if quantity in found:
            found[quantity][name] = tensor.to(device)
    return found
