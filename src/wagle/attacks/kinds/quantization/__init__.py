"""Quantisation: rounding the weights to a few bits can bring back what should be forgotten.

Unlearning moves weights only a little. Where an update stays below half a quantisation step, the
quantised model has the same code as the quantised original, and so its knowledge.

Only weights are quantised, without calibration: those of the linear layers, including the head. A
tied head is untied by this; embeddings, norms and biases stay. ``gguf`` is what llama.cpp makes of
the whole model.

Source: Zhang et al. 2024, arXiv 2410.16454 (there FP4, and LLM.int8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel

from wagle.attacks.parts import as_series
from wagle.attacks.shapes import ASIS, Scene, Series, Trial
from wagle.evaluation.figures import HOLDOUT
from wagle.evaluation.tasks.questions import qa
from wagle.model.loading import empty_model
from wagle.model.quantization.quantizing import WAYS, check_way, quantize
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back


def quantization(
    scene: Scene,
    *,
    methods: Sequence[str] = ("int8", "int4"),
    group_size: int | None = None,
    sets: list[str] | None = None,
    generate: bool = False,
) -> Trial:
    """Round the weights to a few bits, and ask the same again.

    Args:
        scene: its sets are used.
        methods: ``int8`` (per row), ``int4`` (per group), ``nf4``, ``fp4`` (bitsandbytes; fp4 is
            what the paper's code ran), ``gguf`` (llama.cpp).
        group_size: for ``int4``: it must divide the widths of the layers; null: 128 for a billion
            weights or more, else 32.
        sets: which of the recipe's sets to ask about; null: all except the holdout set.
        generate: also generate greedy answers.
    """
    if not methods:
        raise WagleError(f"methods is empty; name some of {', '.join(WAYS)}")
    trust = scene.trust_remote_code
    shape = None if scene.model is None else empty_model(scene.model, trust_remote_code=trust)
    for method in methods:
        check_way(method, group_size, shape)
    names = [name for name in scene.sets if name != HOLDOUT] if sets is None else sets
    asked = {name: scene.need(name, "quantization") for name in names}
    if not asked:
        raise WagleError("the attack quantization has no sets to ask about; name one in sets")
    task = qa(scene.way.encoder, sets=asked, generate=generate, seed=scene.seed)

    def trial(model: PreTrainedModel) -> Series:
        found = {ASIS: scene.way.ask(model, task)}
        for method in methods:
            smaller = quantize(model, method, group_size=group_size)
            found[method] = replace(scene.way, cache=None).ask(smaller, task)
            del smaller
            give_memory_back()
        return as_series(found)

    return trial
