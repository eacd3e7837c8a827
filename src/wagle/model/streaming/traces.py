"""What the way back through a model with one block in memory needs from its forward passes."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wagle.system.errors import WagleError
from wagle.system.memory import Spill

_IN_MEMORY = 64 << 20  # bytes of hidden states before they go to a file
Take = Callable[[str, nn.Parameter, str], None]
Into = Callable[[str], contextlib.AbstractContextManager[Any]]


class Call:
    """A call of a block: what the model's own forward passes to it.

    Args:
        module: the block.
        args: the positional arguments.
        kwargs: those given by name.
        casts: the autocast in which it is called.
    """

    def __init__(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        casts: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        self._module, self._casts = module, casts
        self._keyword = "hidden_states" in kwargs
        self._args = args if self._keyword else args[1:]
        self._kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        self.hidden: Tensor | None = kwargs["hidden_states"] if self._keyword else args[0]

    def run(self, hidden: Tensor | None) -> Any:
        """Call the block's own forward with these hidden states and the other arguments."""
        forward = type(self._module).forward
        with self._casts():
            if self._keyword:
                return forward(self._module, *self._args, hidden_states=hidden, **self._kwargs)
            return forward(self._module, hidden, *self._args, **self._kwargs)

    def drop_cache(self) -> None:
        """Leave out an empty key/value cache, which a second call would fill a second time.

        Raises:
            WagleError: the cache holds tokens.
        """
        from transformers import Cache

        named: list[tuple[Any, Any]] = [*enumerate(self._args), *self._kwargs.items()]
        caches = [(key, value) for key, value in named if isinstance(value, Cache)]
        if any(value.get_seq_length() for _, value in caches):
            raise WagleError(
                "gradients through a key/value cache need the whole model in memory; call it without "
                "past_key_values"
            )
        gone = [key for key, _ in caches]
        self._args = tuple(None if i in gone else arg for i, arg in enumerate(self._args))
        self._kwargs.update(dict.fromkeys([key for key in gone if isinstance(key, str)]))

    @property
    def others(self) -> list[Any]:
        """The arguments besides the hidden states."""
        return [*self._args, *self._kwargs.values()]


@dataclass(eq=False)
class Trace:
    """One forward pass with gradients.

    Attributes:
        calls: per block, its call, without the hidden states.
        entered: what entered a block, by block, if more than the output of the block before is
            behind it: the stem's output, say.
        output: what the last block returned, while it lives.
        fresh: gradients of blocks' outputs that no slot has taken over yet, by block.
        carry: gradients of blocks' outputs, by slot and block.
    """

    calls: list[Call] = field(default_factory=list)
    entered: dict[int, Tensor] = field(default_factory=dict)
    output: weakref.ref[Tensor] | None = None
    fresh: dict[int, Tensor] = field(default_factory=dict)
    carry: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def needs(self, block: int, first: int) -> bool:
        """Whether the way back leads through a block; ``first`` is the first one that trains."""
        wanted = block >= first or any(entered <= block for entered in self.entered)
        return wanted and any(block in carry for carry in self.carry.values())

    def slots(self, block: int) -> list[str]:
        """The slots that have a gradient of a block's output."""
        return [slot for slot, carry in self.carry.items() if block in carry]

    def add(self, slot: str, block: int, grad: Tensor) -> None:
        """Add to the gradient of a block's output."""
        carry = self.carry.setdefault(slot, {})
        carry[block] = carry[block] + grad if block in carry else grad


class _Behind(torch.autograd.Function):
    """The output of a block: its gradient ends here, and is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, output: Tensor, arrive: Callable[[Tensor], None]) -> Tensor:
        ctx.arrive = arrive
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        ctx.arrive(grad)
        return None, None, None


class Way:
    """The way back through the blocks of one model.

    Args:
        model: for messages.
        device: where it computes.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model, self._device = model, device
        self._spill = Spill(_IN_MEMORY)  # what entered each block, by trace and block
        self._fresh: list[Trace] = []
        self._collected: list[Trace] = []
        self._into: Into | None = None
        self._leaf = torch.zeros((), requires_grad=True)

    def begin(self) -> Trace:
        """The trace of a pass that comes to the first block."""
        trace = Trace()
        weakref.finalize(trace, self._forget, id(trace)).atexit = False
        return trace

    def enter(self, trace: Trace, block: int, call: Call) -> None:
        """Keep what enters a block."""
        hidden = call.hidden
        assert hidden is not None
        call.drop_cache()
        check_given(self._model, call.others)
        plain = trace.output is not None and trace.output() is hidden
        if hidden.requires_grad and not plain:
            trace.entered[block] = hidden
        self._spill[id(trace), block] = hidden
        trace.calls.append(call)

    def behind(self, trace: Trace, block: int, found: Any) -> Any:
        """What a block returned, with a hidden state at which a backward pass will end."""
        output = found if isinstance(found, Tensor) else found[0]

        def arrive(grad: Tensor) -> None:
            fresh = trace.fresh
            fresh[block] = fresh[block] + grad if block in fresh else grad
            if trace not in self._fresh:
                self._fresh.append(trace)

        with torch.enable_grad():
            shown: Tensor = _Behind.apply(self._leaf, output, arrive)  # type: ignore[no-untyped-call]
        trace.output = weakref.ref(shown)  # its graph holds the trace
        trace.calls[block].hidden = None
        return shown if isinstance(found, Tensor) else (shown, *found[1:])

    def collect(self, slot: str) -> None:
        """Take over, under a name, the gradients at which backward passes ended since last time."""
        for trace in self._fresh:
            for block, grad in trace.fresh.items():
                trace.add(slot, block, grad)
            trace.fresh.clear()
            if trace not in self._collected:
                self._collected.append(trace)
        self._fresh.clear()

    @contextlib.contextmanager
    def back(self, into: Into | None) -> Iterator[list[Trace]]:
        """The traces with collected gradients; afterwards they are dropped."""
        traces, self._collected = self._collected, []
        self._into = into
        try:
            yield traces
        finally:
            self._into = None

    def through(
        self,
        trace: Trace,
        block: int,
        first: int,
        parameters: Mapping[str, nn.Parameter],
        take: Take,
    ) -> None:
        """Recompute a block for one pass, and go back through it in every slot."""
        hidden = self._spill.pop((id(trace), block)).to(self._device)
        further = block > first or any(entered <= block for entered in trace.entered)
        hidden.requires_grad_(further)
        with torch.enable_grad():
            found = trace.calls[block].run(hidden)
        output = found if isinstance(found, Tensor) else found[0]
        slots = trace.slots(block)
        for number, slot in enumerate(slots):
            grad = trace.carry[slot].pop(block)
            with _taking(parameters, take, slot):
                torch.autograd.backward(output, grad, retain_graph=number + 1 < len(slots))
            before, hidden.grad = hidden.grad, None
            if before is not None:
                self._before(trace, block, slot, before, keep=number + 1 < len(slots))

    def _before(self, trace: Trace, block: int, slot: str, grad: Tensor, *, keep: bool) -> None:
        """Pass on the gradient of what entered a block: to the block before, or to the stem."""
        entered = trace.entered.get(block)
        if entered is None:
            if block > 0:
                trace.add(slot, block - 1, grad)
            return
        with self._into(slot) if self._into is not None else contextlib.nullcontext():
            torch.autograd.backward(entered, grad, retain_graph=keep)
        for ended, more in trace.fresh.items():  # it may lead through the block before
            trace.add(slot, ended, more)
        trace.fresh.clear()
        self._fresh.clear()

    def _forget(self, number: int) -> None:
        for key in [key for key in self._spill if key[0] == number]:  # type: ignore[index]
            del self._spill[key]

    def forget(self) -> None:
        """Drop the gradients that wait."""
        self._fresh.clear()
        self._collected.clear()

    def close(self) -> None:
        """Drop everything."""
        self.forget()
        self._spill.close()


@contextlib.contextmanager
def _taking(parameters: Mapping[str, nn.Parameter], take: Take, slot: str) -> Iterator[None]:
    """Have every gradient taken as soon as it is complete."""

    def taker(name: str) -> Callable[[Tensor], None]:
        return lambda parameter: take(name, parameter, slot)  # type: ignore[arg-type]

    handles = [
        parameter.register_post_accumulate_grad_hook(taker(name))
        for name, parameter in parameters.items()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_given(model: nn.Module, given: object) -> None:
    """Refuse models whose blocks get anything besides hidden states that depends on weights."""
    if any(t.requires_grad for t in _tensors(given)):
        raise WagleError(
            f"{type(model).__name__} passes its blocks more than hidden states that depends on "
            "weights; use engine: whole"
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
