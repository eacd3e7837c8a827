"""The paths of a run's models and of its gradient store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wagle.evaluation.served.engines import open_to_ask
from wagle.model.loading import empty_model, load_model, resolve_model
from wagle.recipe.recipe import NO_REFERENCE, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Models:
    """The models that a recipe names or makes, without loading them.

    Attributes:
        folder: the run folder.
        recipe: the recipe.
    """

    folder: Path
    recipe: Recipe

    @cached_property
    def named(self) -> Path:
        """The model folder that the recipe names."""
        return resolve_model(self.recipe.model.path)

    @property
    def start(self) -> Path:
        """The model before teaching: the one named, with its adapter merged if it has one."""
        if self.recipe.model.adapter is None:
            return self.named
        return self.folder / ("start" if self.recipe.finetune else "base")

    @property
    def base(self) -> Path:
        """The model that is to forget: ``base/`` where it was made here."""
        return self.folder / "base" if self.recipe.finetune else self.start

    @cached_property
    def reference(self) -> Path | None:
        """The model that never learned the forget set, or that stands in for it; None: neither."""
        named = self.recipe.reference
        if named is None:
            return self._stand_in
        if named == NO_REFERENCE:
            return None
        if named == "retrained":
            return self.folder / "retrained"
        return self.start if named == "untaught" else resolve_model(named)

    @property
    def _stand_in(self) -> Path | None:
        """The model before it was taught or adapted, if this run does either."""
        if self.recipe.finetune is not None:
            return self.start
        return None if self.recipe.model.adapter is None else self.named

    def load(self, folder: Path, dtype: str = "float32") -> PreTrainedModel:
        """One of these models, with the recipe's attention and trust."""
        asked = self.recipe.model
        return load_model(folder, dtype, asked.attention, trust_remote_code=asked.trust_remote_code)

    def to_ask(self, folder: Path) -> PreTrainedModel:
        """One of these models, as the recipe's ``evaluation.engine`` has it asked."""
        asked = self.recipe.model
        return open_to_ask(
            folder,
            self.recipe.evaluation.engine,
            attention=asked.attention,
            trust_remote_code=asked.trust_remote_code,
        ).model

    def structure(self) -> PreTrainedModel:
        """The named model without weights."""
        return empty_model(self.named, trust_remote_code=self.recipe.model.trust_remote_code)

    @property
    def gradients(self) -> Path:
        """The gradient store."""
        return self.folder / "private" / "gradients"
