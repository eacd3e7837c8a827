"""What an unlearning step costs on a few weights, beside a step on all of them."""

from __future__ import annotations

import time
from typing import Any

import wagle
from bench.measure import Memory
from wagle.model import load_model, load_tokenizer
from wagle.unlearning.options import Training

STEPS = 4
RATIOS = (0.05, 0.5)


def unlearning(folder: str) -> dict[str, Any]:
    """Seconds per step (8 + 8 demo records, bfloat16 autocast), dense and by ratio."""
    forget = wagle.read_records("demo:forget", name="forget")
    retain = wagle.read_records("demo:retain", name="retain", rows="0:24")
    tokenizer = load_tokenizer(folder)

    def step(mask: wagle.Mask | None) -> float:
        stamps: list[float] = []
        wagle.unlearn(
            load_model(folder),
            tokenizer,
            forget,
            retain,
            objective="grad_diff",
            mask=mask,
            training=Training(max_steps=STEPS, learning_rate=1e-5, precision="bfloat16"),
            on_step=lambda _: stamps.append(time.perf_counter()),
        )
        return (stamps[-1] - stamps[0]) / (STEPS - 1)

    with Memory() as memory:
        store = wagle.gradients(
            load_model(folder), tokenizer, forget[:2], retain[:2], precision="bfloat16"
        )
        masks = {ratio: wagle.Mask.from_scores(store, ratio=ratio) for ratio in RATIOS}
        del store
        dense = step(None)
        found = {str(ratio): step(mask) for ratio, mask in masks.items()}
    return {"dense": dense, "ratios": found, **memory.figures()}
