"""The section ``attribution``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from wagle.recipe.rules import OF_MASK
from wagle.recipe.sections.base import Section
from wagle.recipe.values import (
    AtLeastOne,
    Damping,
    GammaSetting,
    Number,
    Precision,
    Quantity,
    Ratio,
    ScoreName,
    Text,
    refused,
)


class Attribution(Section):
    """Which weights may change: gradients, a score, a mask."""

    score: ScoreName = "wagle"
    """How weights are scored, by name: {scores}; docs/scores.md says what each needs. To choose
    weights without a score: {random_like: MASK} (at random, as many in every tensor as another mask
    selects), {complement: MASK} (the candidates that a mask leaves out) or {by_name: [PATTERN,
    ...]} (all weights of the matching parameters, as in include); these determine their own
    ratio."""

    gamma: GammaSetting = "auto"
    """Trade-off of the wagle scores: a number above 0 (a larger one gives the retain gradient less
    weight); {theta_share: S}, the gamma at which the weight term exceeds the retain term for a
    share S of the weights; auto, which is {theta_share: 0.5}; curvature, the mean squared gradient
    of a retain record; or {mu: M, accumulation: 4}, the published code's mu, which is M *
    accumulation / records, with the size of the forget set as records unless given."""

    damping: Damping = "auto"
    """What wagle_gauss_newton and fisher add to every weight's curvature: a number above 0, or auto
    (the median curvature)."""

    score_settings: dict[str, Number] = {}
    """Further settings of the score that override its defaults, such as {eps: 1.0e-12} for
    grad_ratio."""

    ratio: Ratio = None
    """Share of the candidate weights that the mask selects, 0 < ratio <= 1, exact as a decimal; 1.0
    trains them all. An ascending list makes a ladder of nested ratios in one mask. Null is 0.8, or
    the score's own ratio if it determines one."""

    use: Annotated[float, Field(gt=0, le=1)] | None = None
    """Which ratio of a ladder to train; required if ratio is a ladder."""

    scope: Literal["auto", "global", "tensor", "row", "block"] = "auto"
    """Where weights compete for selection: global (all candidates together), tensor, row (a row of
    a layer's weights, one per output), block, or auto (the scope that the score is meant for, see
    docs/scores.md)."""

    include: list[Text] = []
    """Patterns of parameters; the mask selects only among their weights. Empty means all. A pattern
    is a glob on the parameter's name, such as '*.mlp.*', or a short name: ffn (the blocks'
    feed-forward layers), attention (their attention layers), embeddings (including a tied head),
    norms, head (if untied), or blocks:4-11 (both ends included; blocks:7 is a single block)."""

    exclude: list[Text] = []
    """Patterns of parameters that the mask leaves out; applied after include."""

    quantities: list[Quantity] = []
    """What to measure beyond what the score needs, for scores to be tried later: any of
    {quantities}."""

    engine: Text = "auto"
    """How gradients are computed: whole (the model in memory), stream (one block in memory), or
    auto (whole if it fits)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where gradients are computed: cpu, cuda, or auto (cuda if available); the engine stream needs
    room for one block there."""

    retain_records: AtLeastOne | None = None
    """How many retain records the gradient uses, drawn without replacement; null is 4 per forget
    record, or all if there are fewer."""

    batch_tokens: AtLeastOne = 512
    """Padded tokens per backward pass; changes speed and memory, never the result."""

    store_dtype: Precision = "float32"
    """Precision in which gradients are stored; bfloat16 halves the store and rounds the scores."""

    precision: Precision = "float32"
    """Precision of the matrix products; bfloat16 means autocast over the stored weights."""

    mask: Text | None = None
    """An existing mask file to use instead of making one; of the settings above, only use still
    applies."""

    allow_other_model: bool = False
    """Accept a mask that was made for a related checkpoint."""

    @property
    def selects(self) -> bool:
        """Whether any setting says which weights to select or what to measure, not just how."""
        how = {"engine", "device", "retain_records", "batch_tokens", "store_dtype", "precision"}
        said = type(self).model_fields.items()
        return any(
            getattr(self, name) != field.default
            for name, field in said
            if name not in how | {"allow_other_model"}
        )

    @model_validator(mode="after")
    def _ratio_fits(self) -> Attribution:
        if self.mask is not None:  # whose ladder is not known here
            return self
        if isinstance(self.score, dict):
            kind = next(iter(self.score))
            self._mapping_stands_alone(kind)
            if kind in OF_MASK:
                return self
        ladder = self.ratio if isinstance(self.ratio, list) else []
        if self.use is None and len(ladder) > 1:
            said = f"is missing; attribution.ratio is a ladder, so choose one to train: {ladder}"
            raise refused(said, "use")
        if self.use is not None and not ladder:
            raise refused("is given, but attribution.ratio is not a ladder; remove it", "use")
        if self.use is not None and self.use not in ladder:
            raise refused(f"is {self.use}; it must be a ratio of the ladder: {ladder}", "use")
        return self

    def _mapping_stands_alone(self, kind: str) -> None:
        names = ["ratio", "scope", "score_settings"]
        if kind in OF_MASK:  # these range over the candidates of their mask
            names += ["include", "exclude"]
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                said = f"is given, but attribution.score {kind} determines its own; remove it"
                raise refused(said, name)
