"""The sections that name a set of records."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from wagle.recipe.sections.base import Section
from wagle.recipe.values import Number, Rows, SourceName, Take, Text, refused


class RecordSet(Section):
    """Records to read. A bare text is their source: ``forget: demo:forget``."""

    bare: ClassVar[str] = "source"

    source: SourceName
    """A JSON, JSON-lines or CSV file, a folder of such files (with split), or demo:SET with SET one
    of forget, retain, retain_heldout and general (demo:SET@N forgets other authors); or a list of these. For the retain set also
    complement: the records that forget.take left out."""

    split: Text | None = None
    """Which file of a folder to read, by its name without the ending."""

    rows: Rows | None = None
    """A range of rows, FIRST:LAST from 0 without LAST, cut before take. Either may be left out, in quotes:
    '20:'."""

    take: Take = "all"
    """How many records: all, a count, or a percentage such as 10%, drawn by (seed, record);
    smaller draws are contained in larger ones."""

    seed: int | None = None
    """Of the draw of take; null is the seed of the run."""

    weights: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=1)] | None = None
    """With a list of sources: how often each is drawn relative to the others, one number each."""

    @model_validator(mode="after")
    def _weights_fit(self) -> RecordSet:
        if self.weights is None:
            return self
        if isinstance(self.source, str):
            raise refused(
                "is given, but there is only one source; give a list or remove it", "weights"
            )
        if len(self.weights) != len(self.source):
            said = f"has {len(self.weights)} numbers for {len(self.source)} sources; give one each"
            raise refused(said, "weights")
        return self
