"""Training settings for unlearning and teaching alike; their defaults are defined only here."""

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
    """Maximum number of optimiser steps; overrides epochs."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of the optimiser."""

    batch_size: Annotated[int, Field(ge=1, strict=True)] = 8
    """Records of each set per forward pass; only its product with accumulation affects the
    result."""

    accumulation: Annotated[int, Field(ge=1, strict=True)] = 1
    """Forward passes per optimiser step."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of the selected weights; norms and biases are exempt."""

    warmup_steps: Annotated[int, Field(ge=0, strict=True)] = 0
    """Steps of linear warm-up from zero."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or decaying to zero at the last step."""

    optimizer: str = "AdamW"
    """An element-wise optimiser of torch.optim by name, {optimizers}, or one from bitsandbytes
    (extra 8bit): {optimizers_8bit}."""

    optimizer_settings: dict[str, Any] = {}
    """Further keyword arguments for the optimiser, such as betas or momentum."""

    curvature_every: Annotated[int, Field(ge=1, strict=True)] = 10
    """Steps between SophiaG's curvature passes."""

    curvature: Literal["retain", "forget"] = "retain"
    """The set from which SophiaG estimates its curvature; forget if there are no retain records."""

    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient of the selected weights to this norm; 0 disables clipping."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products; bfloat16 means autocast over the stored weights."""

    rounding: Literal["nearest", "stochastic"] = "nearest"
    """How the float32 masters are rounded for weights that are saved in bfloat16: after every step,
    or at the end if the model is loaded in float32. With stochastic, updates smaller than half a
    rounding step still take effect on average."""

    engine: Literal["auto", "whole", "stream"] = "auto"
    """How the model trains: whole (all of it in memory), stream (one block in memory, read from its
    folder twice a step, with what trains kept in temporary files), or auto (whole if it fits). Both
    give the same result up to rounding. A model that is given live trains whole."""

    activation_checkpointing: bool = False
    """Keep only the inputs of each block and recompute the rest: a third more time, far less
    memory."""

    dropout: bool = False
    """Leave the model's dropout on; with it off, results do not depend on the batch size."""

    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Minutes between checkpoints, from which a killed run resumes; 0 writes one at every step."""

    report_to: list[str] = []
    """Trackers that receive the figures of every step, as in transformers: tensorboard, wandb,
    trackio, mlflow. tensorboard writes next to the checkpoints unless TENSORBOARD_LOGGING_DIR is
    set."""


class Finetune(Section, Training):
    """Teach the model records before unlearning, so that it has something to forget."""

    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning rate after the warm-up: constant, or decaying to zero at the last step."""

    sets: Annotated[list[SetName], Field(min_length=1)] | None = None
    """Which of forget, retain, retain_heldout and records to teach; null teaches all of these that
    the recipe has."""

    records: RecordSet | None = None
    """Further records to teach, in addition to the recipe's sets."""
