"""How training runs, for unlearning and teaching alike: the one home of these defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wagle.recipe.sections.base import Section
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.values import SetName


class Training(BaseModel):
    """Settings of one training run."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    epochs: Annotated[int, Field(ge=1, strict=True)] = 5
    """Passes over the anchor set (the forget set, or the records to teach)."""

    max_steps: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Optimiser steps at most; overrides epochs."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of the optimiser."""

    batch_size: Annotated[int, Field(ge=1, strict=True)] = 8
    """Records of each set per forward pass; with accumulation, it does not change the result."""

    accumulation: Annotated[int, Field(ge=1, strict=True)] = 1
    """Forward passes per optimiser step."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of the selected weights; norms and biases are left out."""

    warmup_steps: Annotated[int, Field(ge=0, strict=True)] = 0
    """Steps of linear warm-up from zero."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or down to zero at the last step."""

    optimizer: str = "AdamW"
    """An element-wise optimiser of torch.optim by name, {optimizers}, or of bitsandbytes (extra 8bit)
    one of {optimizers_8bit}."""

    optimizer_settings: dict[str, Any] = {}
    """More keyword arguments of the optimiser, such as betas or momentum."""

    curvature_every: Annotated[int, Field(ge=1, strict=True)] = 10
    """Steps between two curvature passes of SophiaG."""

    curvature: Literal["retain", "forget"] = "retain"
    """The set whose records give SophiaG its curvature; without retain records, forget."""

    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient of the selected weights to this norm; 0 does not clip."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    rounding: Literal["nearest", "stochastic"] = "nearest"
    """How the float32 masters become weights that are saved in bfloat16, after every step or, where the
    model is loaded in float32, at the end; stochastic lets updates that are smaller than half a
    rounding step act on average."""

    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again: a third more time, far less
    memory."""

    dropout: bool = False
    """Keep the model's dropout on; off, results do not depend on the batch size."""

    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between two checkpoints from which a killed run goes on; 0 is every step."""

    report_to: list[str] = []
    """Trackers that get the figures of every step, as in transformers: tensorboard, wandb, trackio,
    mlflow. tensorboard writes beside the checkpoints, or where TENSORBOARD_LOGGING_DIR says."""


class Finetune(Section, Training):
    """Teach the model records before it forgets them (a model that never knew has nothing to lose)."""

    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning rate after the warm-up: constant, or down to zero at the last step."""

    sets: Annotated[list[SetName], Field(min_length=1)] | None = None
    """What to teach, among forget, retain, retain_heldout and records; null is all that the recipe
    has of these."""

    records: RecordSet | None = None
    """Further records to teach, beside the sets of the recipe."""
