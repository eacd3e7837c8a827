"""A streamed model for other processes: the folder is named, and what lies over it travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from wagle.compat.transformers import attention_of
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.streaming.stream import Laid


@dataclass(frozen=True)
class Sent:
    """A streamed model as an argument of common work: each process reads the folder itself.

    Attributes:
        model: the model.
    """

    model: PreTrainedModel

    def __reduce__(self) -> tuple[Any, ...]:
        stream = stream_of(self.model)
        assert stream is not None
        overlay = {name: (laid.index, laid.values) for name, laid in stream.overlay.items()}
        owned = {name: self.model.get_parameter(name).detach() for name in stream.owned}
        how = (
            str(self.model.dtype).removeprefix("torch."),
            attention_of(self.model.config) or "auto",
            not type(self.model).__module__.startswith("transformers."),
        )
        return _opened, (stream.folder, how, overlay, owned)


def _opened(
    folder: Path,
    how: tuple[str, str, bool],
    overlay: Mapping[str, tuple[Tensor | None, Tensor]],
    owned: Mapping[str, Tensor],
) -> Sent:
    dtype, attention, trust = how
    model = open_streamed(folder, dtype, attention, trust_remote_code=trust)
    stream = stream_of(model)
    assert stream is not None
    stream.overlay.update({name: Laid(*laid) for name, laid in overlay.items()})
    for name, values in owned.items():
        stream.own(name).data.copy_(values)
    return Sent(model)
