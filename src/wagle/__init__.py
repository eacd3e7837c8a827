"""wagle makes language models forget: weight attribution, masks, unlearning, evidence.

The public names are resolved on first use, so that importing the package stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.attribution.collect import gradients as gradients
    from wagle.attribution.store import GradientStore as GradientStore
    from wagle.data.records import Record as Record
    from wagle.data.records import read_records as read_records
    from wagle.errors import WagleError as WagleError
    from wagle.evaluation.asking import evaluate as evaluate
    from wagle.evaluation.result import Evaluation as Evaluation
    from wagle.mask import Mask as Mask
    from wagle.mask_exchange import export_mask as export_mask
    from wagle.mask_exchange import import_mask as import_mask
    from wagle.patch import Patch as Patch
    from wagle.recipe import Recipe as Recipe
    from wagle.run import execute as execute
    from wagle.unlearning.options import Training as Training
    from wagle.unlearning.training import finetune as finetune
    from wagle.unlearning.training import unlearn as unlearn

__version__ = "0.1.0"

_HOME = {
    "Evaluation": "evaluation.result",
    "GradientStore": "attribution.store",
    "Mask": "mask",
    "Patch": "patch",
    "Recipe": "recipe",
    "Record": "data.records",
    "Training": "unlearning.options",
    "WagleError": "errors",
    "evaluate": "evaluation.asking",
    "execute": "run",
    "export_mask": "mask_exchange",
    "finetune": "unlearning.training",
    "gradients": "attribution.collect",
    "import_mask": "mask_exchange",
    "read_records": "data.records",
    "unlearn": "unlearning.training",
}

__all__ = [
    "Evaluation",
    "GradientStore",
    "Mask",
    "Patch",
    "Recipe",
    "Record",
    "Training",
    "WagleError",
    "evaluate",
    "execute",
    "export_mask",
    "finetune",
    "gradients",
    "import_mask",
    "read_records",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wagle' has no attribute {name!r}")
    return getattr(import_module(f"wagle.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
