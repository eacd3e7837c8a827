"""Selected weights: the float32 master copy of what the mask selects, all an optimiser sees.

When a parameter's gradient is ready, a hook moves its selected entries into the gradient of a
compact vector and frees the dense one. Any element-wise optimiser steps on those vectors and only
they are written back, so decay, momentum or precision cannot touch the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wagle.errors import WagleError
from wagle.mask import Mask

_CHUNK = 1 << 22  # indices widened at a time


def _flat(parameter: nn.Parameter) -> Tensor:
    data = parameter.data
    if not data.is_contiguous():
        raise WagleError("a parameter is not contiguous in memory; load the model again")
    return data.view(-1)


class _Slice:
    """One parameter: its flat indices (int32, or None for all of it) and its master vector."""

    def __init__(self, name: str, parameter: nn.Parameter, index: Tensor | None) -> None:
        self.name, self.parameter = name, parameter
        self.index = None if index is None else index.to(parameter.device)
        flat = _flat(parameter)
        self.shared = index is None and flat.dtype == torch.float32
        picked = flat if self.index is None else flat.index_select(0, self.index)
        self.before = picked.clone()  # in the model's own precision
        self.master = nn.Parameter(picked if self.shared else picked.float(), requires_grad=True)

    def take_gradient(self, parameter: Tensor) -> None:
        """The hook: add the selected entries to the master's gradient, free the dense one."""
        assert parameter.grad is not None
        dense = (
            parameter.grad.view(-1)
            if parameter.grad.is_contiguous()
            else parameter.grad.reshape(-1)
        )
        parameter.grad = None
        part = (dense if self.index is None else dense.index_select(0, self.index)).float()
        if self.master.grad is None:
            self.master.grad = part
        else:
            self.master.grad += part

    def write_back(self) -> None:
        """Round the master to the model's precision and store it in the selected places."""
        flat, master = _flat(self.parameter), self.master.detach()
        if self.shared:
            return
        if self.index is None:
            flat.copy_(master)
            return
        for index, values in zip(self.index.split(_CHUNK), master.split(_CHUNK), strict=True):
            flat.index_copy_(0, index.long(), values.to(flat.dtype))

    def changed(self) -> int:
        """How many selected weights differ from before, in the model's own precision."""
        flat = _flat(self.parameter)
        now = flat if self.index is None else flat.index_select(0, self.index)
        return int(torch.count_nonzero(now != self.before))


class SelectedWeights:
    """The weights that may move, of one model under one mask (None: all of them).

    Args:
        model: its trainable parameters are watched by hooks until ``close``.
        mask: a single ratio, made for this model.
    """

    def __init__(self, model: nn.Module, mask: Mask | None) -> None:
        self.model = model
        self._slices: list[_Slice] = []
        self._frozen: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            index = None if mask is None else mask.selected(name)
            if index is not None and len(index) == parameter.numel():
                index = None
            if index is not None and len(index) == 0:
                self._frozen.append(parameter)  # no gradient needed: a cheaper backward pass
                continue
            self._slices.append(_Slice(name, parameter, index))
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self._handles = [
            s.parameter.register_post_accumulate_grad_hook(s.take_gradient) for s in self._slices
        ]
        self._seal = self._rest()

    @property
    def count(self) -> int:
        """How many weights are selected."""
        return sum(s.master.numel() for s in self._slices)

    def named_masters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The compact vectors that an optimiser steps on, by parameter name."""
        for s in self._slices:
            yield s.name, s.master

    def clip(self, max_norm: float) -> float:
        """Clip the compact gradients to ``max_norm`` (0: do not) and return their norm."""
        masters = [s.master for s in self._slices if s.master.grad is not None]
        limit = max_norm if max_norm > 0 else float("inf")
        return float(torch.nn.utils.clip_grad_norm_(masters, limit))

    def write_back(self) -> None:
        """After an optimiser step: store the masters and drop their gradients."""
        for s in self._slices:
            s.write_back()
            s.master.grad = None

    def changed(self) -> int:
        """How many selected weights differ from before the run, in the model's precision."""
        return sum(s.changed() for s in self._slices)

    def _rest(self) -> dict[str, str]:
        """A digest per tensor of all that is not selected (selected entries read as zero)."""
        slices = {id(s.parameter): s for s in self._slices}
        digests = {}
        state = dict(self.model.named_parameters())
        state.update((n, b) for n, b in self.model.named_buffers())  # type: ignore[misc]
        for name, tensor in state.items():
            owner = slices.get(id(tensor))
            if owner is not None and owner.index is None:
                continue
            flat = tensor.detach().reshape(-1)
            if owner is not None and owner.index is not None:
                flat = flat.clone()
                flat[owner.index.long()] = 0
            digest = hashlib.sha256()
            for chunk in flat.cpu().split(_CHUNK):
                digest.update(memoryview(chunk.contiguous().view(torch.uint8).numpy()))
            digests[name] = digest.hexdigest()
        return digests

    def verify(self) -> None:
        """Check that every unselected weight is bit-identical to what it was at the start."""
        moved = [name for name, digest in self._rest().items() if self._seal[name] != digest]
        if moved:
            raise RuntimeError(f"unselected weights of {moved[0]} changed; please report this bug")

    def close(self) -> None:
        """Remove the hooks and give every parameter its gradient back."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
