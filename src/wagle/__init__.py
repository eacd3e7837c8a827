"""wagle makes language models forget: weight attribution, masks, unlearning, evidence.

The public names are resolved on first use, so that importing the package stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wagle.attribution.gradients.collect import gradients as gradients
    from wagle.attribution.store import GradientStore as GradientStore
    from wagle.data.reading import read_records as read_records
    from wagle.data.records import Record as Record
    from wagle.evaluation.knowing.checking import check_knowledge as check_knowledge
    from wagle.evaluation.measuring import evaluate as evaluate
    from wagle.evaluation.result import Evaluation as Evaluation
    from wagle.mask.exchange import export_mask as export_mask
    from wagle.mask.exchange import import_mask as import_mask
    from wagle.mask.mask import Mask as Mask
    from wagle.patch.file import Patch as Patch
    from wagle.recipe.recipe import Recipe as Recipe
    from wagle.recipe.sections.training import Training as Training
    from wagle.run.execution import execute as execute
    from wagle.system.errors import WagleError as WagleError
    from wagle.unlearning.forgetting import unlearn as unlearn
    from wagle.unlearning.retraining import retrain_adapter as retrain_adapter
    from wagle.unlearning.teaching import finetune as finetune

    __version__: str

_HOME = {
    "Evaluation": "evaluation.result",
    "GradientStore": "attribution.store",
    "Mask": "mask.mask",
    "Patch": "patch.file",
    "Recipe": "recipe.recipe",
    "Record": "data.records",
    "Training": "recipe.sections.training",
    "WagleError": "system.errors",
    "check_knowledge": "evaluation.knowing.checking",
    "evaluate": "evaluation.measuring",
    "execute": "run.execution",
    "export_mask": "mask.exchange",
    "finetune": "unlearning.teaching",
    "gradients": "attribution.gradients.collect",
    "import_mask": "mask.exchange",
    "read_records": "data.reading",
    "retrain_adapter": "unlearning.retraining",
    "unlearn": "unlearning.forgetting",
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
    "check_knowledge",
    "evaluate",
    "execute",
    "export_mask",
    "finetune",
    "gradients",
    "import_mask",
    "read_records",
    "retrain_adapter",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("wagle")
    if name not in _HOME:
        raise AttributeError(f"module 'wagle' has no attribute {name!r}")
    return getattr(import_module(f"wagle.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
