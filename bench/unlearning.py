"""What an unlearning step costs: time against a plain Trainer's, bytes per weight, a 7B shape.

Each measurement runs in its own process; ``bench/rows.py`` says what the figures mean.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

import wagle
from bench.measure import Memory
from bench.setup import Setup, encoder_of, random_sets, record_sets
from wagle.data.batches import Pairs, plan
from wagle.mask.writing import MaskWriter
from wagle.model.loading import load_model
from wagle.model.structure import without_dropout
from wagle.recipe.sections.training import Training
from wagle.system.memory import give_memory_back

STEPS = 6  # the first is left out
BATCH = 8  # records of each set
RATIO_7B = 0.05


def random_mask(model: nn.Module, ratio: float) -> wagle.Mask:
    """A random mask of every parameter, each weight with chance ``ratio``, made without a store."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    writer, count = MaskWriter(shapes, [ratio]), 0
    for number, (name, shape) in enumerate(shapes.items()):
        size = math.prod(shape)
        draw = torch.rand(size, generator=torch.Generator().manual_seed(number))
        chosen = draw < ratio
        writer.add(name, chosen)
        count += int(torch.count_nonzero(chosen))
    give_memory_back()
    return wagle.Mask(*writer.finish([count], {"model": "", "score": "random"}))


class _Plain(Trainer):
    """Gradient difference over all weights, written in the obvious way with the plain Trainer."""

    loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Mapping[str, Tensor]],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The mean NLL of the retain records minus that of the forget records."""
        del return_outputs, num_items_in_batch
        losses = []
        for name in ("forget", "retain"):
            batch = inputs[name]
            labels = batch["input_ids"].masked_fill(~batch["scored"], -100)
            losses.append(
                model(
                    batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
                ).loss
            )
        return losses[1] - losses[0]


class _Stamps(TrainerCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def plain_step(setup: Setup) -> dict[str, Any]:
    """Seconds per step of a plain ``transformers.Trainer``: AdamW on all weights, autocast."""
    model = load_model(setup.model, attention="eager")
    encoder = encoder_of(setup)
    forget, retain = (encoder.encode(r) for r in record_sets(setup, BATCH))
    pairs = Pairs(
        plan(forget, retain, epochs=STEPS, seed=0), {"forget": forget}, {"retain": retain}
    )
    stamps = _Stamps()
    with Memory() as memory, without_dropout(model):
        trainer = _Plain(
            model,
            TrainingArguments(
                output_dir=str(setup.at("small", "plain")),
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-6,
                lr_scheduler_type="constant",
                bf16=True,
                use_cpu=True,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                remove_unused_columns=False,
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=pairs,
            data_collator=pairs.collate,
            callbacks=[stamps],
        )
        trainer.train()
    return {"step": _step(stamps.times), **memory.figures()}


def _step(times: list[float]) -> float:
    """The median step, the first left out."""
    return statistics.median(b - a for a, b in itertools.pairwise(times))


def masked_step(setup: Setup, objective: str, ratio: float) -> dict[str, Any]:
    """Seconds per step of unlearning on a random mask, and the bytes that it holds.

    ``held`` covers all tensors alive right after the optimiser's step, except the model's own:
    index, master, gradient, moments and anything else; per weight of the model.
    """
    model = load_model(setup.model, attention="eager")
    forget, retain = record_sets(setup, BATCH)
    mask = random_mask(model, ratio) if ratio < 1 else None
    packed = 0 if mask is None else _storages(mask._packed[n] for n in mask.shapes)
    times: list[float] = []
    held: list[int] = []
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}

    def count(*_: Any) -> None:
        held.append(_storages(_alive(), own) - packed)

    # The optimiser is created inside; only its class can be hooked before that.
    handle = register_optimizer_step_post_hook(count)
    try:
        with Memory() as memory:
            wagle.unlearn(
                model,
                encoder_of(setup),
                forget,
                retain,
                objective=objective,
                mask=mask,
                stop_when=[],
                allow_other_model=True,
                training=Training(
                    max_steps=STEPS, batch_size=BATCH, learning_rate=1e-6, precision="bfloat16"
                ),
                on_step=lambda _: times.append(time.perf_counter()),
            )
    finally:
        handle.remove()
    weights = sum(p.numel() for p in model.parameters())
    return {"step": _step(times), "held": max(held) / weights, **memory.figures()}


def _alive() -> list[Tensor]:
    found = gc.get_objects()
    # type() and not isinstance: asking some lazy objects of torch for their class is a warning
    tensors = (o for o in found if issubclass(type(o), Tensor))
    # a meta tensor has no bytes; a sparse one left by other code has no storage
    return [t for t in tensors if not t.is_meta and t.layout == torch.strided]


def _storages(tensors: Any, without: set[int] | None = None) -> int:
    """Bytes of the storages of these tensors, each once."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in (without or ()):
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def step_7b(setup: Setup) -> dict[str, Any]:
    """Two steps of gradient difference on a Llama-2-7B shape in bfloat16, 2 + 2 records."""
    folder = setup.at("largest", "model")
    forget, retain = random_sets(setup.size.largest, 2)
    times: list[float] = []
    with Memory() as memory:
        model: PreTrainedModel = load_model(folder, "bfloat16", attention="eager")
        began = time.perf_counter()
        result = wagle.unlearn(
            model,
            None,
            forget,
            retain,
            objective="grad_diff",
            mask=random_mask(model, RATIO_7B),
            stop_when=[],
            allow_other_model=True,
            training=Training(
                max_steps=2, batch_size=2, learning_rate=1e-4, activation_checkpointing=True
            ),
            on_step=lambda _: times.append(time.perf_counter()),
        )
        took = time.perf_counter() - began
    return {
        "step": times[1] - times[0],
        "whole": took,
        "selected": result.selected,
        "changed": result.changed,
        "weights": sum(p.numel() for p in model.parameters()),
        **memory.figures(),
    }
