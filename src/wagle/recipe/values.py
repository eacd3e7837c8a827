"""Kinds of values in a recipe: what each may be, and the one-line error if it is not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from wagle.recipe.rules import (
    MOST_RATIOS,
    UNSCORED,
    Unfit,
    check_ladder,
    parse_damping,
    parse_gamma,
    parse_unscored,
)

_SHOWN = 60  # characters of a value in a message
_PATH, _PART = 4000, 255  # bytes of a path, and between two slashes: what file systems take


def refused(said: str, key: str = "") -> PydanticCustomError:
    """An error whose line reads ``SECTION.key said``."""
    return PydanticCustomError("refused", "{said}", {"said": said, "key": key})


def shown(value: Any) -> str:
    """A value as a message shows it: short, and in YAML notation where that differs."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


# ---------------------------------------------------------------------------------------------
# Kinds of values


def plain(value: Any) -> Any:
    """``value`` in a form that YAML and JSON can hold: tuples become lists, paths become text."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    if value is None or isinstance(value, bool | int | float | str | BaseModel):
        return value
    raise refused(
        f"holds a {type(value).__name__}; a recipe holds text, numbers, lists and mappings"
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticKnownError("float_type")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise PydanticKnownError("float_type") from None
    if not math.isfinite(number):
        raise PydanticKnownError("finite_number")
    return number


def _name_or_path(value: str) -> str:
    """A text that names something: none is longer than a path can be."""
    long = max(value.encode(errors="replace").split(b"/"), key=len)
    if len(long) > _PART or len(value) > _PATH:
        said = f"is {shown(value)} with {len(value):,} characters; no name or path is that long"
        raise refused(said)
    if "\0" in value:
        raise refused(f"is {shown(value)}; no name or path has a zero byte")
    return value


def _setting(value: Any) -> bool | float | int | str | list[str]:
    """A number (YAML 1.1 reads 1e-5 as text), true or false, a text, or a list of texts."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and value and all(isinstance(v, str) and v for v in value):
        return list(value)
    if isinstance(value, int):
        return value
    try:
        return _number(value)
    except PydanticKnownError as error:
        if error.type == "float_type" and isinstance(value, str) and value:
            return value
        raise


def _ratio(value: Any) -> float | list[float] | None:
    """One ratio, or a ladder of them in ascending order."""
    if value is None:
        return None
    ladder = [_number(one) for one in (value if isinstance(value, list) else [value])]
    for ratio in ladder:
        if not ratio > 0:
            raise PydanticKnownError("greater_than", {"gt": 0.0})
        if ratio > 1:
            raise PydanticKnownError("less_than_equal", {"le": 1.0})
    try:
        check_ladder(ladder, float)
    except Unfit as unfit:
        raise refused(
            f"has {len(ladder)} ratios; a ladder has 1 to {MOST_RATIOS}"
            if unfit.rule == "length"
            else f"is {shown(value)}; a ladder must ascend without repeats"
        ) from None
    return ladder if isinstance(value, list) else ladder[0]


def _number_or_none(value: Any) -> float | None:
    try:
        return _number(value)
    except PydanticKnownError:
        return None


_PARTS = {  # of a gamma, by the rule that they break
    "number": "it must be a number",
    "positive": "it must be above 0",
    "share": "it must lie between 0 and 1",
    "whole": "it must be a whole number",
}


def _gamma(value: Any) -> float | str | dict[str, float]:
    try:
        return parse_gamma(value, _number_or_none)
    except Unfit as unfit:
        if unfit.rule in ("form", "key"):
            raise refused(
                f"is {shown(value)}; it must be 'auto', 'curvature', a number above 0, "
                "{theta_share: 0.5} or {mu: 1.0e-6, accumulation: 4}"
            ) from None
        share = unfit.rule == "positive" and unfit.key == "theta_share"
        said = _PARTS["share" if share else unfit.rule]
        raise refused(f"is {shown(unfit.value)}; {said}", unfit.key) from None


def _damping(value: Any) -> float | str:
    try:
        return parse_damping(value, _number_or_none)
    except Unfit:
        said = f"is {shown(value)}; it must be 'auto' or a number above 0"
        raise refused(said) from None


def _score(value: Any) -> str | dict[str, Any]:
    """A name, or a mapping with one key: another mask or patterns."""
    if not isinstance(value, Mapping):
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        if not value:
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        return value
    try:
        _, given = parse_unscored(value, lambda path: isinstance(path, str) and bool(path))
    except Unfit as unfit:
        said = {
            "keys": f"it must have exactly one of the keys {', '.join(UNSCORED)}",
            "mask": "it must be the path of a mask",
            "patterns": "it must be a list, such as [ffn, '*.q_proj.*']",
        }[unfit.rule]
        raise refused(f"is {shown(unfit.value)}; {said}", unfit.key) from None
    for one in [given] if isinstance(given, str) else given:
        _name_or_path(one)
    return dict(value)


def _take(value: Any) -> int | str:
    if isinstance(value, float):
        share = f"{100 * value:g}%" if 0 < value <= 1 else "10%"
        raise refused(
            f"is {shown(value)}, which could be a share or a count; write a share as {share}, "
            "a count as a whole number"
        )
    text = "" if isinstance(value, bool) else str(value)
    found = re.fullmatch(r"0*([1-9]\d{0,17})(%?)", text, re.ASCII)
    if found and (not found[2] or int(found[1]) <= 100):
        return f"{found[1]}%" if found[2] else int(found[1])
    if text == "all":
        return text
    raise refused(
        f"is {shown(value)}; it must be all, a count above 0, or a whole percentage up to 100%"
    )


def _rows(value: str) -> str:
    if not re.fullmatch(r"\d{1,18}:\d{0,18}|:\d{1,18}", value, re.ASCII):
        raise refused(f"is {shown(value)}; write FIRST:LAST, such as 0:360 or '20:'")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise refused(f"is {shown(value)}; use letters, digits, '.', '_' and '-' only")
    if not value.strip("."):
        raise refused(f"is {value!r}; it needs a letter or a digit")
    if len(value) > _PART - 55:  # it may begin or end the name of a file
        raise refused(f"is {shown(value)} with {len(value):,} characters; use at most {_PART - 55}")
    return value


MADE_SET = "made"  # the source of records that a run makes itself
MADE_SOURCES = (MADE_SET, f"{MADE_SET}:neighbours", f"{MADE_SET}:neutral")


def _source(value: Any) -> Any:
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(one, str) and one for one in given):
        raise refused(
            f"is {shown(value)}; it must be a file, a folder, demo:SET, or a list of these"
        )
    alone = next((one for one in given if one in ("complement", *MADE_SOURCES)), None)
    if isinstance(value, list) and alone is not None:
        raise refused(f"has {alone!r} in a list; it can only stand alone")
    for one in given:
        _name_or_path(one)
    unknown = next((v for v in given if v.startswith("made:") and v not in MADE_SOURCES), None)
    if unknown is not None:
        raise refused(f"is {shown(unknown)}; records are {', '.join(MADE_SOURCES)}")
    return value


Number: TypeAlias = Annotated[float, BeforeValidator(_number)]
Text: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_name_or_path)]
Setting: TypeAlias = Annotated[bool | float | int | str | list[str], BeforeValidator(_setting)]
AtLeastOne: TypeAlias = Annotated[int, Field(ge=1)]
Precision: TypeAlias = Literal["float32", "bfloat16"]
Quantity: TypeAlias = Literal[
    "grad_forget",
    "grad_retain",
    "grad_refusal",
    "square_retain",
    "fisher_retain",
    "input_square",
]
AttackName: TypeAlias = Literal["loss", "zlib", "zlib_sum", "lower", "min_k", "min_k++", "gradnorm"]
ScoreName: TypeAlias = Annotated[str | dict[str, str | list[str]], BeforeValidator(_score)]
GammaSetting: TypeAlias = Annotated[
    float
    | Literal["auto", "curvature"]
    | dict[Literal["theta_share", "mu", "accumulation", "records"], float],
    BeforeValidator(_gamma),
]
Damping: TypeAlias = Annotated[float | Literal["auto"], BeforeValidator(_damping)]
Ratio: TypeAlias = Annotated[float | list[float] | None, BeforeValidator(_ratio)]
Take: TypeAlias = Annotated[int | str, BeforeValidator(_take)]
SourceName: TypeAlias = Annotated[str | list[str], BeforeValidator(_source)]
Rows: TypeAlias = Annotated[str, AfterValidator(_rows)]
Name: TypeAlias = Annotated[str, AfterValidator(_name)]
SetName: TypeAlias = Literal["forget", "retain", "retain_heldout", "records"]


def kind_of(annotation: Any) -> Any:
    """The type of a field without ``Annotated`` and without ``| None``."""
    inner = [one for one in get_args(annotation) if one is not type(None)]
    if hasattr(annotation, "__metadata__") or (inner and len(inner) < len(get_args(annotation))):
        return kind_of(inner[0])
    return annotation
