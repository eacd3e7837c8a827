"""What wagle needs from datasets beyond its documented names. Tested with datasets 5.2.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.exceptions import DatasetsError as DatasetsError


def __getattr__(name: str) -> Any:
    """``DatasetsError``, imported on first use: the undocumented base of the library's errors.

    Source: https://github.com/huggingface/datasets/blob/main/src/datasets/exceptions.py
    """
    if name != "DatasetsError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from datasets.exceptions import DatasetsError

    return DatasetsError


def hub_is_offline() -> bool:
    """Whether the library is barred from asking the hub.

    It reads the environment (``HF_DATASETS_OFFLINE`` too) once, so looking there is not enough.
    Source: https://github.com/huggingface/datasets/blob/main/src/datasets/config.py
    """
    from datasets import config

    return bool(config.HF_HUB_OFFLINE)
