"""The sections that name a set of records."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from wagle.recipe.sections.base import Section
from wagle.recipe.values import MADE_SOURCES, Number, Rows, SourceName, Take, Text, refused


class RecordSet(Section):
    """Records to read. Plain text is short for their source: ``forget: demo:forget``."""

    bare: ClassVar[str] = "source"

    source: SourceName
    """A JSON, JSON Lines or CSV file, a folder of such files (with split), demo:SET where SET is
    forget, retain, retain_heldout or general (demo:SET@N forgets other authors), or a list of
    these. The retain set can also be complement: the records that forget.take left out; or made:
    the model's own answers, from before unlearning, to what the forget set asks about invented
    subjects (made:neighbours) or to neutral questions (made:neutral)."""

    split: Text | None = None
    """Which file of a folder to read, by its name without the extension."""

    rows: Rows | None = None
    """A range of rows, FIRST:LAST, counted from 0 and without LAST; it applies before take. Either
    end may be left out, in quotes: '20:'."""

    take: Take = "all"
    """How many records: all, a count, or a percentage such as 10%, drawn by (seed, record);
    smaller draws are contained in larger ones."""

    seed: int | None = None
    """Seed of the draw of take; null uses the run's seed."""

    weights: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=1)] | None = None
    """With a list of sources, how often each is drawn relative to the others: one number per
    source."""

    @property
    def is_made(self) -> bool:
        """Whether the run makes these records itself."""
        return isinstance(self.source, str) and self.source in MADE_SOURCES

    @model_validator(mode="after")
    def _weights_fit(self) -> RecordSet:
        if self.weights is None:
            return self
        if isinstance(self.source, str):
            raise refused(
                "is given, but there is only one source; give a list or remove it", "weights"
            )
        if len(self.weights) != len(self.source):
            said = f"has {len(self.weights)} numbers for {len(self.source)} sources; give one per source"
            raise refused(said, "weights")
        return self
