"""How training runs, for unlearning and teaching alike: the one home of these defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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
    """An element-wise optimiser of torch.optim, by name."""

    optimizer_settings: dict[str, Any] = {}
    """More keyword arguments of the optimiser, such as betas or momentum."""

    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the gradient of the selected weights to this norm; 0 does not clip."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    dropout: bool = False
    """Keep the model's dropout on; off, results do not depend on the batch size."""
