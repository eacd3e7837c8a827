"""Selected weights: the float32 master copy of what the mask selects, and all an optimiser sees.

When a parameter's gradient is ready, a hook moves its selected entries into a compact vector and
frees the dense one. Any element-wise optimiser steps on the masters of those vectors, and only they
are written back, so decay, momentum or precision cannot affect the rest.

Each selected weight takes 4 bytes of index, 4 of master, 4 of gradient and what the optimiser
keeps; the values from before the run, for counting what changed, are kept in a file. Those of a
streamed model lie over the blocks in its folder, and vectors that are large lie in files too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wagle.mask.mask import Mask
from wagle.model.streaming.opening import stream_of
from wagle.model.structure import is_sharded
from wagle.system.errors import WagleError
from wagle.system.mapped import Room, passing, will_need
from wagle.system.memory import Spill, give_memory_back
from wagle.system.processes import group
from wagle.unlearning.training.weights.choosing import blocks_of, choose
from wagle.unlearning.training.weights.clipping import clip_all, clip_one_by_one
from wagle.unlearning.training.weights.overlaid import Overlaid
from wagle.unlearning.training.weights.seal import seal
from wagle.unlearning.training.weights.slices import IN_MEMORY, Round, Slice, drop


class Vectors(Protocol):
    """A vector per parameter, by its name: in memory, or read from a file when asked for."""

    def __getitem__(self, name: str, /) -> Tensor:
        """One vector per selected entry of the parameter."""


class SelectedWeights:
    """The weights of one model that may move under one mask (None: all of them).

    Gradients go to *slots*: ``total``, unless the backward pass runs inside ``into(slot)``.

    Args:
        model: its trainable parameters carry hooks until ``close``.
        mask: a mask of one ratio, made for this model.
        only: names of the parameters that take part; None takes all.
        saved: the precision in which each parameter will be saved, by name; the model's own if a
            parameter is not named.
    """

    def __init__(
        self,
        model: nn.Module,
        mask: Mask | None,
        only: set[str] | None = None,
        saved: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        self.model = model
        self.sharded, self._stream = is_sharded(model), stream_of(model)
        self._slot = "total"
        self._slices: list[Slice] = []
        self._frozen: list[nn.Parameter] = []
        self._before = Spill(0)
        for parameter, made in choose(model, mask, only, saved or {}):
            if made is None:
                self._frozen.append(parameter)  # needs no gradient: a cheaper backward pass
                continue
            self._before[made.name] = made.stored()
            self._slices.append(made)
            made.let_go()
        self._handles = [
            s.parameter.register_post_accumulate_grad_hook(self._taker(s)) for s in self._slices
        ]
        for parameter in self._frozen:
            if self.sharded:  # FSDP2 has already decided which parameters have a gradient
                self._handles.append(parameter.register_post_accumulate_grad_hook(drop))
            else:
                parameter.requires_grad_(False)
        self._lay_over()
        self._seal = self._rest()
        give_memory_back()

    def _lay_over(self) -> None:
        """Have a streamed model use the current values, and compute only gradients that train."""
        if self._stream is not None:
            over = {s.name: s for s in self._slices if isinstance(s, Overlaid)}
            self._stream.overlay = {name: s.laid for name, s in over.items()}
            self._stream.trained = set(over)

    def _each(self) -> Iterator[Slice]:
        """The slices one after the other; the vectors of those that were passed are let go."""
        for s, following in zip(self._slices, [*self._slices[1:], None], strict=True):
            if following is not None:
                will_need(following.index, following.master)
            yield s
            s.let_go()

    @property
    def where(self) -> Room:
        """Where its vectors lie."""
        return self._slices[0].where if self._slices else IN_MEMORY

    def parts(self) -> list[list[nn.Parameter]]:
        """The masters as an optimiser should step on them: block by block, or all at once."""
        if self._stream is None:
            return [[s.master for s in self._slices]]
        homes = blocks_of(self._stream)
        found: dict[int | str, list[nn.Parameter]] = {}
        for s in self._slices:
            found.setdefault(homes.get(s.name, s.name), []).append(s.master)
        return [*found.values()]

    def _taker(self, owner: Slice) -> Callable[[Tensor], None]:
        def take(_: Tensor) -> None:
            owner.take(self._slot)

        return take

    @cached_property
    def sizes(self) -> dict[str, list[int]]:
        """How many selected entries of each parameter every process holds, in their order."""
        own = {s.name: s.master.numel() for s in self._slices}
        every = group.gather(own) if self.sharded else [own]
        return {name: [one[name] for one in every] for name in own}

    @property
    def count(self) -> int:
        """How many weights are selected, on all processes together."""
        return sum(map(sum, self.sizes.values()))

    def named_masters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The compact vectors that an optimiser steps on, by parameter name."""
        for s in self._slices:
            yield s.name, s.master

    def rows(self) -> list[Tensor | None]:
        """Per parameter the row (a matrix's output) of every selected entry, int32, or None."""
        rows = ((s, s.rows()) for s in self._each())
        return [None if row is None else s.where.put(row) for s, row in rows]

    # ----- gradients -----

    def kept(self, vectors: Iterable[Tensor]) -> list[Tensor]:
        """Vectors made one after the other for all parameters, where those of the run lie."""
        return [s.where.put(v) for s, v in zip(self._slices, vectors, strict=True)]

    def collect(self, slot: str) -> None:
        """After a backward pass: what a streamed model has still to carry back is for ``slot``."""
        if self._stream is not None:
            self._stream.collect(slot)

    def carry_back(self) -> None:
        """Carry what was collected back through the blocks of a streamed model, each read once."""
        if self._stream is not None:
            owners = {s.name: s for s in self._slices}
            self._stream.backward(lambda name, p, slot: owners[name].take(slot, p), self.into)

    @contextmanager
    def into(self, slot: str) -> Iterator[None]:
        """Send the gradients of backward passes inside the block to ``slot``."""
        before, self._slot = self._slot, slot
        try:
            yield
        finally:
            self._slot = before

    def add_up(self, *slots: str) -> None:
        """Add the gradients that the other processes have in these slots.

        Only the selected entries travel: 4 bytes for each of them and slot. Of a sharded model they
        have travelled already.
        """
        if group.world() == 1:
            return
        for slot in slots:
            there = [s.name for s in self._slices if slot in s.gradients]
            anywhere = set().union(*group.gather(there))
            held = [s.held(slot) for s in self._slices if s.name in anywhere]
            if not self.sharded:
                group.add_up_all(held)

    def take(self, slot: str) -> list[Tensor]:
        """The gradients of a slot, which is emptied; zeros for parameters that received none."""
        found = [s.gradients.pop(slot, None) for s in self._slices]
        return [
            torch.zeros_like(s.master) if g is None else g.clone() if g is s.room else g
            for s, g in zip(self._slices, found, strict=True)
        ]

    def give(self, gradients: Sequence[Tensor]) -> None:
        """Make these the gradients that the optimiser uses."""
        for s, gradient in zip(self._slices, gradients, strict=True):
            s.gradients["total"] = gradient

    def ready(self, max_norm: float) -> float:
        """Give the masters their gradients, clipped to ``max_norm`` (0: not); returns the norm."""
        for s in self._slices:
            s.master.grad = s.gradients.pop("total", None)
        masters = [s.master for s in self._slices if s.master.grad is not None]
        limit = max_norm if max_norm > 0 else float("inf")
        clip = clip_all if self._stream is None else clip_one_by_one
        return clip(masters, limit, sharded=self.sharded)

    # ----- weights -----

    def write_back(self, narrow: Round | None = None) -> None:
        """After an optimiser step, store the masters, rounded by ``narrow``; drop the gradients."""
        for s in self._each():
            s.master.grad = None
            if not s.shared:
                s.put(s.master.detach(), narrow)

    @contextmanager
    def shifted(self, by: Sequence[Tensor]) -> Iterator[None]:
        """Run with ``by`` added to the selected weights, then restore them bit for bit."""
        kept = self.kept(s.stored().clone() for s in self._each())
        try:
            for s, (shift,) in zip(self._each(), passing(by), strict=True):
                s.put(s.master.detach() + shift)
            yield
        finally:
            for s, (values,) in zip(self._each(), passing(kept), strict=True):
                s.put(values)

    def soft_threshold(self, amount: float, names: set[str]) -> None:
        """Move the masters of these parameters towards zero by ``amount``, stopping at zero."""
        with torch.no_grad():
            for s in self._each():
                if s.name in names:
                    size = (s.master.abs() - amount).clamp(min=0)
                    s.master.copy_(s.master.sign() * size)

    def extrapolate(self, scale: float) -> None:
        """Turn ``before + d`` into ``before + scale * d``, in float32."""
        with torch.no_grad():
            for s in self._each():
                before = self._before[s.name].to(s.master.device, torch.float32)
                s.master.sub_(before).mul_(scale).add_(before)

    def owners(self, optimizer: Optimizer) -> list[str]:
        """The names of the parameters that an optimiser of masters steps on, in its order."""
        names = {id(master): name for name, master in self.named_masters()}
        return [names[id(p)] for g in optimizer.param_groups for p in g["params"]]

    def sizes_of(self, optimizer: Optimizer) -> list[list[int]]:
        """How many entries each of its parameters has on all processes, by its groups."""
        names = iter(self.owners(optimizer))
        return [[sum(self.sizes[next(names)]) for _ in g["params"]] for g in optimizer.param_groups]

    def whole(self, name: str, part: Tensor) -> Tensor:
        """One number per selected entry of a parameter, of which each process has its own part.

        All processes call this together; only rank 0 has the whole vector afterwards.
        """
        if not self.sharded:
            return part
        found = group.to_main(part.detach().cpu(), self.sizes[name])
        return part.new_empty(0, device="cpu") if found is None else found

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This process's part of such a vector."""
        if not self.sharded:
            return whole
        start = sum(self.sizes[name][: group.rank()])
        return whole[start : start + self.sizes[name][group.rank()]]

    def masters(self) -> dict[str, Tensor]:
        """The masters by parameter name, for saving."""
        return {s.name: s.master.detach() for s in self._slices}

    def restore(self, masters: Mapping[str, Tensor], narrow: Round | None = None) -> None:
        """Load saved masters, and write them back."""
        with torch.no_grad():
            for s in self._each():
                s.master.copy_(masters[s.name])
        self.write_back(narrow)

    def place(self, early: Vectors, late: Vectors, share: float) -> None:
        """Set the masters to ``early + share * (late - early)``; the ends are exact."""
        with torch.no_grad():
            for s in self._each():
                far = late[s.name].to(s.master.device, torch.float32)
                if share == 1:
                    s.master.copy_(far)
                    continue
                near = early[s.name].to(s.master.device, torch.float32)
                s.master.copy_(near).lerp_(far, share)

    @property
    def before(self) -> Vectors:
        """The weights from before the run, by parameter name, in the model's precision."""
        return self._before

    def reset(self) -> None:
        """Restore the weights from before the run, bit for bit."""
        with torch.no_grad():
            for s in self._each():
                before = self._before[s.name].to(s.master.device)
                s.master.copy_(before)
                s.put(before)

    @property
    def saved(self) -> list[torch.dtype]:
        """The precisions that the selected weights will be saved in."""
        return sorted({s.saved for s in self._slices}, key=str)

    def settle(self, narrow: Round | None = None) -> None:
        """Round the model to the precision of saving: it then holds what its folder will.

        The masters do not change, except those that are the model's own weights.
        """
        for s in self._each():
            if torch.finfo(s.saved).eps > torch.finfo(s.parameter.dtype).eps:
                s.put(s.master.detach(), narrow, s.saved)

    # ----- what changed, and what did not -----

    def changed(self) -> int:
        """How many selected weights differ from before the run, in the precision of saving."""
        total = sum(s.changed(self._before[s.name]) for s in self._each())
        return sum(group.gather(total)) if self.sharded else total

    def _rest(self) -> dict[str, str]:
        """A digest per tensor of everything not selected."""
        return seal(self.model, {id(s.parameter): s.index for s in self._slices})

    def verify(self) -> None:
        """Check that every unselected weight is bit-identical to its value at the start."""
        moved = [name for name, digest in self._rest().items() if self._seal[name] != digest]
        if moved and moved[0].endswith(".safetensors"):
            raise WagleError(f"{moved[0]} has changed while the model trained; start again")
        if moved:
            raise RuntimeError(f"unselected weights of {moved[0]} changed; please report this bug")

    def close(self) -> None:
        """Remove the hooks, drop the old values, and let every parameter have a gradient again."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        if self._stream is not None:  # its overlay stays: it is the model now
            self._stream.trained = {name for names in self._stream.names for name in names}
        self._before.close()
