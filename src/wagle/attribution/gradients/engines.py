"""Engines: how the gradients of a model are computed.

An engine takes the model, the passes over its records and a sink for finished results. All give the
same numbers. To add one, write a function here, its entry in ENGINES, and a test that its numbers
equal those of ``whole``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn
from transformers import PreTrainedModel

from wagle.attribution.gradients.passes import Job, Pass
from wagle.attribution.gradients.sink import Sink
from wagle.attribution.gradients.stream import stream
from wagle.attribution.gradients.sweep import Sweep
from wagle.model.loading import load_model
from wagle.model.sharding import load_sharded
from wagle.model.structure import DTYPES, without_dropout
from wagle.model.weights import Weights
from wagle.system.errors import WagleError, choose
from wagle.system.memory import free_memory, give_memory_back
from wagle.system.processes import group

Engine: TypeAlias = Callable[["PreTrainedModel | Path", Sequence[Pass], Job, Sink], None]
_ROOM = 1.3e9  # bytes for libraries, activations and one dense gradient


def whole(model: PreTrainedModel | Path, passes: Sequence[Pass], job: Job, sink: Sink) -> None:
    """The model in memory: one sweep per pass, every gradient added to a float32 sum.

    Several processes share the batches of a pass, and add up their sums at its end.

    A hook adds a parameter's gradient to its sum as soon as it is complete and frees it, so only
    one dense gradient is alive besides the sums. Padding, batch size and order do not change the
    result beyond floating-point error. About once a minute the sums go to the sink, so that a
    killed pass resumes after the last batch saved there.
    """
    live = model if isinstance(model, nn.Module) else _loaded(model, job)
    if live is not model and not job.shard:
        torch.nn.Module.to(live, job.device)
    training = live.training
    live.eval()
    kept = sink.kept("sums") if group.rank() == 0 else None
    first, skip = group.from_main((kept[1]["pass"], kept[1]["batches"]) if kept else (0, 0))
    try:
        with without_dropout(live):
            for number, which in enumerate(passes):
                if number >= first:
                    give_memory_back()  # the last pass's activations lie scattered
                    before = kept if kept and number == first else None
                    Sweep(live, number, which, job, sink, before[0] if before else {}, skip).run()
                    skip = 0
    finally:
        live.train(training)


def _loaded(folder: Path, job: Job) -> PreTrainedModel:
    load = load_sharded if job.shard else load_model
    return load(folder, job.dtype, job.attention, trust_remote_code=job.trust)


ENGINES: dict[str, Engine] = {"stream": stream, "whole": whole}


def compute(
    engine: str, model: PreTrainedModel | Path, passes: Sequence[Pass], job: Job, sink: Sink
) -> None:
    """Have an engine do the passes, on all processes, and close the sink."""
    with sink:
        ENGINES[engine](model, passes, job, sink)


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
    need = whole_needs(count, DTYPES[job.dtype].itemsize, in_memory=in_memory)
    return "whole" if need <= free_memory(torch.device(job.device)) else "stream"


def whole_needs(count: int, held: int, *, in_memory: bool) -> float:
    """Bytes of memory for which ``auto`` takes ``whole``: for a model of so many weights.

    Args:
        count: the weights.
        held: bytes of each in memory.
        in_memory: whether the store stays in memory.
    """
    return count * (held + (8 if in_memory else 4)) + _ROOM
