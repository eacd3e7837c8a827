"""The setup of a measurement: the model, the records, the sizes, where files go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wagle
from bench.models import settings_of
from wagle.data.draws import uniform
from wagle.data.tokens import Encoder
from wagle.model.loading import load_tokenizer

TOKENS, SCORED = 62, 40  # per random record: the lengths of a TOFU record


@dataclass(frozen=True)
class Scale:
    """The sizes of a benchmark; shapes are named as in ``bench/models.py``."""

    records: int = 20  # per set
    few: int = 4  # per set, if only numbers or memory are compared
    sizes: tuple[int, ...] = (1, 8, 16)  # batches of the plain backward pass
    large: str = "tinyllama-1.1b"
    largest: str = "llama-2-7b"
    largest_records: int = 8
    depth: str = "depth"
    padded: int = 512  # tokens of a record in the published code
    rate_bytes: int = 2 << 30  # size of the file used to measure the disk's rate


SCALES = {
    "full": Scale(),
    "tiny": Scale(4, 2, (1, 4), "tiny", "tiny-3", 2, "tiny", 128, 1 << 24),
}


@dataclass(frozen=True)
class Setup:
    """What every measurement needs to know.

    Attributes:
        model: a float32 model folder with a tokenizer.
        tofu: a folder with TOFU's splits; None: the demo records.
        scratch: where models, stores and masks are made.
        scale: a name in SCALES.
    """

    model: str
    tofu: str | None
    scratch: str
    scale: str = "full"

    @property
    def size(self) -> Scale:
        """The sizes of this benchmark."""
        return SCALES[self.scale]

    def at(self, *parts: str) -> Path:
        """A path in the scratch folder, whose parent is created."""
        path = Path(self.scratch).joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def encoder_of(setup: Setup) -> Encoder:
    """Records without a chat template's system turn, which makes TOFU's about 65 tokens long."""
    return Encoder(load_tokenizer(setup.model), template="plain")


def record_sets(setup: Setup, count: int) -> tuple[list[wagle.Record], list[wagle.Record]]:
    """``count`` forget and ``count`` retain records: TOFU's first, or the demo's."""
    rows = f"0:{count}"
    if setup.tofu is None:
        return (
            wagle.read_records("demo:forget", name="forget", rows=rows),
            wagle.read_records("demo:retain", name="retain", rows=rows),
        )
    return (
        wagle.read_records(setup.tofu, name="forget", split="forget01", rows=rows),
        wagle.read_records(setup.tofu, name="retain", split="retain99", rows=rows),
    )


def random_sets(shape: str, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two sets of pre-tokenised records of random tokens: the last 40 of 62 are scored."""
    vocabulary = settings_of(shape)["vocab_size"]

    def record(which: str, number: int) -> dict[str, Any]:
        ids = [int(uniform(which, number, t) * vocabulary) for t in range(TOKENS)]
        return {"input_ids": ids, "labels": [-100] * (TOKENS - SCORED) + ids[-SCORED:]}

    forget, retain = ([record(w, i) for i in range(count)] for w in ("forget", "retain"))
    return forget, retain
