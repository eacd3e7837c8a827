"""Engines: how the gradients of a model are computed.

An engine takes the model, the passes over its records and a sink for finished results. All give the
same numbers. To add one, write a function here, its entry in ENGINES, and a test that its numbers
equal those of ``whole``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
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
from wagle.attribution.gradients.stream import stream
from wagle.model.loading import load_model
from wagle.model.scoring import answer_nll
from wagle.model.structure import DTYPES, precision, to_device, without_dropout
from wagle.model.weights import Weights
from wagle.system.errors import WagleError, choose
from wagle.system.memory import free_memory, give_memory_back
from wagle.system.progress import track

Engine: TypeAlias = Callable[["PreTrainedModel | Path", Sequence[Pass], Job, Sink], None]
_ROOM = 1.3e9  # bytes for libraries, activations and one dense gradient


def whole(model: PreTrainedModel | Path, passes: Sequence[Pass], job: Job, sink: Sink) -> None:
    """The model in memory: one sweep per pass, every gradient added to a float32 sum.

    A hook adds a parameter's gradient to its sum as soon as it is complete and frees it, so only
    one dense gradient is alive besides the sums. Padding, batch size and order do not change the
    result beyond floating-point error. About once a minute the sums go to the sink, so that a
    killed pass resumes after the last batch saved there.
    """
    if isinstance(model, nn.Module):
        live = model
    else:
        live = load_model(model, job.dtype, job.attention, trust_remote_code=job.trust)
    if live is not model:
        torch.nn.Module.to(live, job.device)
    training = live.training
    live.eval()
    kept = sink.kept("sums")
    first, skip = (kept[1]["pass"], kept[1]["batches"]) if kept else (0, 0)
    try:
        with without_dropout(live):
            for number, which in enumerate(passes):
                if number >= first:
                    give_memory_back()  # the last pass's activations lie scattered
                    before = kept if kept and number == first else None
                    _sweep(live, number, which, job, sink, before[0] if before else {}, skip)
                    skip = 0
    finally:
        live.train(training)


def _sweep(
    model: PreTrainedModel,
    number: int,
    which: Pass,
    job: Job,
    sink: Sink,
    before: dict[str, Tensor],
    skip: int,
) -> None:
    """One pass of ``whole``; the sums ``before`` already include the first ``skip`` batches."""
    device = model.device
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    sums = Sums(which, parameters)
    sums.start(_unflatten(before, device, sums.found))
    batches = which.batches(job.batch_tokens)
    done, between = skip, True  # in the middle of a batch the sums hold only part of it
    with contextlib.ExitStack() as stack:
        stack.enter_context(sums.hooked())
        inputs = None
        if "inputs" in which.kinds:
            inputs = Inputs(which, linear_layers(model))
            inputs.found |= _unflatten(before, device, {inputs.quantity: {}})[inputs.quantity]
            stack.enter_context(inputs.hooked())
        stack.enter_context(torch.set_grad_enabled(which.backward))

        def keep() -> None:
            sink.keep("sums", _flatten(sums, inputs), {"pass": number, "batches": done})
            sink.wait()  # the sums are about to change

        try:
            for batch in track(batches[skip:], f"{which.set} gradients", size=_records):
                if inputs:
                    inputs.real = batch["attention_mask"].to(device)
                between = False
                sums.share = _records(batch) / len(which.tokens)
                nll = _losses(model, batch, which, job)
                if which.backward:
                    nll.mean().backward()
                done, between = done + 1, True
                if sink.due():
                    keep()
        except KeyboardInterrupt:
            if between:
                keep()
            raise
    sink.add("00000", sums.finish())
    if inputs:
        sink.add("00000", inputs.finish())
    sink.wait()


def _records(batch: dict[str, Any]) -> int:
    return len(batch["index"])


def _losses(model: PreTrainedModel, batch: dict[str, Any], which: Pass, job: Job) -> Tensor:
    with precision(model.device, job.precision):
        nll = answer_nll(model, to_device(batch, model.device)).nll_mean  # (B,)
    check_loss(nll, batch, which.tokens)
    return nll


def _flatten(sums: Sums, inputs: Inputs | None) -> dict[str, Tensor]:
    """The sums so far, keyed by quantity and parameter together."""
    found = {**sums.found, **({inputs.quantity: inputs.found} if inputs else {})}
    return {f"{q} {n}": t for q, tensors in found.items() for n, t in tensors.items()}


def _unflatten(
    flat: dict[str, Tensor], device: torch.device, quantities: Any
) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {quantity: {} for quantity in quantities}
    for key, tensor in flat.items():
        quantity, name = key.split(" ", 1)
        if quantity in found:
            found[quantity][name] = tensor.to(device)
    return found


ENGINES: dict[str, Engine] = {"stream": stream, "whole": whole}


def choose_engine(name: str, model: PreTrainedModel | Path, job: Job, *, in_memory: bool) -> str:
    """The engine that ``name`` means; ``auto`` is ``whole`` if it fits, else ``stream``.

    ``whole`` needs the weights, 4 bytes of float32 sum per weight (8 if the store stays in memory)
    and about 1.3 GB.
    """
    if name != "auto":
        choose(ENGINES, name, "engine")
        if name == "stream" and isinstance(model, nn.Module):
            raise WagleError(
                "engine stream reads its weights from a model folder, but this model is live; "
                "give its folder, or use engine: whole"
            )
        return name
    if isinstance(model, nn.Module):
        return "whole"
    weights = Weights(model)
    count = weights.count()
    weights.close()
    need = count * (DTYPES[job.dtype].itemsize + (8 if in_memory else 4)) + _ROOM
    return "whole" if need <= free_memory(torch.device(job.device)) else "stream"
