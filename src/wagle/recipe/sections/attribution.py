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
    """How weights are scored, by name: {scores}; docs/scores.md says what each needs. Or, without a
    score, {random_like: MASK} (at random, in every tensor as many as another mask selects),
    {complement: MASK} (the candidates that it leaves out) or {by_name: [PATTERN, ...]} (all weights of
    the parameters that match, as in include); these have their own ratio."""

    gamma: GammaSetting = "auto"
    """Trade-off of the wagle scores: a number above 0 (larger counts the retain gradient less),
    {theta_share: S} for the gamma at which a share S of the weights has a weight term larger than
    its retain term, auto, which is {theta_share: 0.5}, curvature, the mean squared gradient of a
    retain record, or {mu: M, accumulation: 4}, the mu of the published code, M * accumulation /
    records, with the records of the forget set unless given."""

    damping: Damping = "auto"
    """What wagle_gauss_newton and fisher add to the curvature of every weight: a number above 0, or
    auto, the median of the curvature."""

    score_settings: dict[str, Number] = {}
    """Further settings of the score over its defaults, such as {eps: 1.0e-12} of grad_ratio."""

    ratio: Ratio = None
    """Share of the candidate weights that the mask selects, 0 < ratio <= 1, exact on the decimal;
    1.0 trains them all. An ascending list is a ladder of nested ratios in one mask. Null is 0.8, or
    what follows from a score that has its own ratio."""

    use: Annotated[float, Field(gt=0, le=1)] | None = None
    """Which ratio of a ladder to train; required with a ladder."""

    scope: Literal["auto", "global", "tensor", "row", "block"] = "auto"
    """Within what the ratio is selected: global (all candidates compete), tensor, row (of a layer's
    weights, one per output), block, or auto, the scope that the score is meant for, which
    docs/scores.md names."""

    include: list[Text] = []
    """Patterns of parameters; the mask selects among their weights only. Empty is all. A pattern is
    a glob on the name of a parameter, such as '*.mlp.*', or a short name: ffn (the feed-forward layers
    of the blocks), attention (their attention layers), embeddings (a tied head is among them), norms,
    head (an untied one), or blocks:4-11 (both included; blocks:7 is one)."""

    exclude: list[Text] = []
    """Patterns of parameters that the mask leaves out, after include."""

    quantities: list[Quantity] = []
    """What to measure beyond what the score needs, for scores that are tried later, among
    {quantities}."""

    engine: Text = "auto"
    """How gradients are made: whole (the model in memory), stream (one block in memory), or auto,
    which takes whole where it fits."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where gradients are computed: cpu, cuda, or auto, which is cuda where there is one; the engine
    stream needs room for one block there."""

    retain_records: AtLeastOne | None = None
    """How many retain records the gradient uses, without replacement; null is 4 per forget record,
    at most all."""

    batch_tokens: AtLeastOne = 512
    """Padded tokens per backward pass; changes speed and memory, never the result."""

    store_dtype: Precision = "float32"
    """In which gradients are stored; bfloat16 halves the store and rounds the scores."""

    precision: Precision = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    mask: Text | None = None
    """An existing mask file to use instead of making one; of the settings above, only use is read."""

    allow_other_model: bool = False
    """Accept a mask that was made for a related checkpoint."""

    @property
    def selects(self) -> bool:
        """Whether a setting says which weights to select or what to measure, not only how."""
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
            said = f"is missing; attribution.ratio is a ladder, so name the one to train: {ladder}"
            raise refused(said, "use")
        if self.use is not None and not ladder:
            raise refused("is given, but attribution.ratio is no ladder; remove it", "use")
        if self.use is not None and self.use not in ladder:
            raise refused(f"is {self.use}; it must be a ratio of the ladder: {ladder}", "use")
        return self

    def _mapping_stands_alone(self, kind: str) -> None:
        names = ["ratio", "scope", "score_settings"]
        if kind in OF_MASK:  # these range over the candidates of their mask
            names += ["include", "exclude"]
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                said = f"is given, but attribution.score {kind} has its own; remove it"
                raise refused(said, name)
