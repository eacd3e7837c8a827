"""A model in this process: the engine answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, Request
from wagle.model.weights import fingerprint


@dataclass(frozen=True)
class Live:
    """A model in this process.

    Attributes:
        live: the model.
        known: its mark, if known; None: the fingerprint of its weights.
        about: what else the result file says about it.
    """

    live: PreTrainedModel
    known: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def mark(self) -> str:
        """The fingerprint of its weights, or what stands for it."""
        return self.known or fingerprint(self.live)

    @property
    def entry(self) -> dict[str, Any]:
        """Which model it is, for the result file."""
        return {
            "fingerprint": self.mark,
            "dtype": str(self.live.dtype).removeprefix("torch."),
            "vocabulary": self.live.config.get_text_config(decoder=True).vocab_size,
            **self.about,
        }

    def answer(
        self,
        requests: Iterable[Request],
        *,
        encoder: Encoder,
        precision: str = "float32",
        batch_tokens: int | None = None,
        cache: Path | None = None,
    ) -> Answers:
        """Answer every distinct request once; see ``Asker``."""
        settings = self.live.generation_config
        ends = settings.eos_token_id if settings else None
        stop_ids = encoder.stop_ids(ends) if encoder.tokenizer is not None else [0]
        kept = None
        if cache is not None:
            kept = AnswerCache(cache, self.mark, str(self.live.dtype), precision, stop_ids)
        return answer_requests(
            self.live,
            requests,
            stop_ids=stop_ids,
            batch_tokens=batch_tokens,
            dtype=precision,
            cache=kept,
        )
