"""What wagle needs of datasets beyond its documented names. Tested with datasets 5.2.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.exceptions import DatasetsError as DatasetsError


def __getattr__(name: str) -> Any:
    """``DatasetsError``, on first use: the base of what the library raises, documented nowhere.

    Source: https://github.com/huggingface/datasets/blob/main/src/datasets/exceptions.py
    """
    if name != "DatasetsError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from datasets.exceptions import DatasetsError

    return DatasetsError


def hub_is_offline() -> bool:
    """Whether the library may not ask the hub.

    It reads the environment once, ``HF_DATASETS_OFFLINE`` too, so the environment does not tell.
    Source: https://github.com/huggingface/datasets/blob/main/src/datasets/config.py
    """
    from datasets import config

    return bool(config.HF_HUB_OFFLINE)
