"""Control vectors: where an objective pushes the activations of forget records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wagle.data.batches import token_batches
from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.model.streaming.opening import each
from wagle.model.structure import device_of, to_device, without_dropout
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.activations import contrast_control, random_control
from wagle.unlearning.reading.activations import hidden

_TOKENS = 2048  # padded tokens of a prompt, at most


def control_vectors(
    model: nn.Module, encoder: Encoder, settings: Mapping[str, Any], topics: int, seed: int
) -> Tensor:
    """One control vector per forget topic: (topics, d) float32.

    ``direction: random`` draws them; ``contrast`` takes the difference between the activations of a
    ``novice`` and an ``expert`` prompt at their last token, for each of ``topics`` (filled in for
    ``{topic}``).
    """
    owner: Any = model
    steering = float(settings["steering"])
    if settings["direction"] == "random":
        size = owner.config.get_text_config(decoder=True).hidden_size
        drawn = [random_control(seed, topic, size, steering=steering) for topic in range(topics)]
        return torch.stack(drawn)
    device, layer = device_of(model), int(settings["layer"])

    def end(text: str) -> Tensor:
        tokens = encoder.encode([Record("text", answer=text, id=text, place="control")])
        batch = to_device(token_batches(tokens[:1], _TOKENS)[0], device)
        return hidden(model, batch, layer).states[_last_word(tokens[0])].cpu()

    names = topic_names(settings, topics)
    texts = [
        str(settings[prompt]).replace("{topic}", name)
        for name in names
        for prompt in ("novice", "expert")
    ]
    with torch.no_grad(), without_dropout(model):
        ends = each(model, end, texts)
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return torch.stack([contrast_control(one, two, steering=steering) for one, two in pairs])


def topic_names(settings: Mapping[str, Any], topics: int) -> list[str]:
    """What replaces ``{topic}`` in the prompts of ``contrast``, one name per forget topic."""
    named = list(settings["topics"]) or [""] * (topics == 1)
    if len(named) != topics:
        raise WagleError(
            f"topics names {len(named)} topics, but the forget set has {topics} sources; give one "
            "name per source"
        )
    return named


def _last_word(tokens: Tokens) -> int:
    """The last token of a text before the end mark that the encoder added."""
    return len(tokens.ids) - (2 if tokens.closed else 1)
