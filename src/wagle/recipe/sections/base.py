"""What all sections of a recipe share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from wagle.recipe.values import Text, kind_of, plain

_WHOLE = 2**63  # whole numbers are counts and seeds: none needs more


class Section(BaseModel):
    """What all sections share: unknown settings are refused, and values are not coerced."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    bare: ClassVar[str] = ""  # the setting that a bare text in place of the section stands for

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, data: Any) -> Any:
        if isinstance(data, str | Path) and cls.bare:
            return {cls.bare: data}
        return {} if data is None else data

    @field_validator("*", mode="before")
    @classmethod
    def _strict(cls, value: Any, info: ValidationInfo) -> Any:
        """Text may be a number (YAML 1.1 reads 1e-5 as text), but true and 1 are different."""
        kind = kind_of(cls.model_fields[str(info.field_name)].annotation)
        if kind is float and isinstance(value, bool):
            raise PydanticKnownError("float_type")
        if kind is int and value is not None and type(value) is not int:
            raise PydanticKnownError("int_type")
        if kind is int and value is not None and abs(value) >= _WHOLE:
            raise PydanticKnownError("less_than", {"lt": float(_WHOLE)})
        if kind is bool and type(value) is not bool:
            raise PydanticKnownError("bool_type")
        return value if section_of(kind) else plain(value)


class Named(Section):
    """Something chosen by name, with its own settings. Plain text is short for its name."""

    bare = "name"

    name: Text
    """Which one."""

    settings: dict[str, JsonValue] = {}
    """Its settings."""

    label: Annotated[Text, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """The name of its results, needed if one is used twice; null uses its own name."""

    @property
    def called(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


def item_of(annotation: Any) -> type[Section] | None:
    """The section that each item of a list field holds, if it is such a list."""
    kind = kind_of(annotation)
    return section_of(get_args(kind)[0]) if get_origin(kind) is list else None


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    kind = kind_of(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
