"""How much goes through the model in step: what waits between blocks has to fit somewhere."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from wagle.model.structure import device_of
from wagle.system.memory import free_memory

JOBS = 64  # batches in step; more would hardly share the reading further
_WAITING = 3  # times the hidden states: they, what rotary embeddings and masks add, one result


@dataclass(frozen=True)
class Room:
    """Limits, in tokens and in bytes.

    Attributes:
        waiting: padded tokens whose hidden states wait in memory between two blocks.
        traced: tokens whose hidden states before every block are kept for a way back.
        beside: tokens of texts that are computed as one batch: one block's keys and values.
        written: tokens whose keys and values of all blocks are kept, in memory and on disk.
        memory: bytes of these that stay in memory.
        held: tokens whose keys and values, or hidden states, all stay in memory.
    """

    waiting: int
    traced: int
    beside: int
    written: int
    memory: int
    held: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Room:
        """What a quarter of the free memory and half of the free disk allow."""
        config = model.config.get_text_config(decoder=True)
        device, depth, size = device_of(model), config.num_hidden_layers, model.dtype.itemsize
        memory = free_memory() // 4
        disk = shutil.disk_usage(tempfile.gettempdir()).free // 2
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        inner = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        kept = 2 * heads * inner * size  # one token's, in one block
        state = config.hidden_size * size
        return cls(
            waiting=min(memory, free_memory(device) // 4) // (_WAITING * state),
            traced=(memory + disk) // (depth * state),
            beside=min(memory, free_memory(device) // 4) // (3 * kept),
            written=(memory + disk) // (depth * kept),
            memory=memory,
            held=memory // max(depth * kept, _WAITING * state),
        )

    def halved(self) -> Room:
        """Half as much at a time."""
        return replace(self, waiting=self.waiting // 2, beside=self.beside // 2)
