"""Reading files that a stranger may have made: whole, regular, of a bounded size, and JSON in bounds.

Everything that does not fit is one line that names the file. Bounds are far above what wagle writes.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Hashable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

from wagle.system.errors import WagleError

T = TypeVar("T")
DEEPEST = 100  # levels of lists and mappings, one inside the other
LONGEST = 300  # characters of a number: a whole number of that length still is a float
MOST = 1 << 28  # bytes of a file of JSON
_NAME = 200  # characters of a path or a name in a message
_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # may be half of a pair
_HALF = re.compile("[\ud800-\udfff]")
_LONG = re.compile(rf"[0-9]{{{LONGEST}}}|[0-9.][eE]\+?[0-9]{{3}}")  # may be too large a number


class _Unfit(Exception):
    """What is wrong with the content of a file."""


def one_line(text: str | Path) -> str:
    """A path, or a name from a file, as messages show it: in one line, and cut if very long."""
    text = str(text)
    text = text if len(text) <= _NAME else f"{text[: _NAME - 3]}..."
    return text if text.isprintable() else repr(text)[1:-1]


def read_bytes(path: str | Path, most: int = MOST) -> bytes:
    """The content of a regular file.

    A pipe or a device is refused without waiting for it.

    Args:
        path: the file.
        most: how many bytes are read; a larger file is refused.

    Raises:
        WagleError: there is no such file, it is a folder, a pipe or a device, it cannot be read,
            or it is too large.
    """
    where = one_line(path)
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise WagleError(f"{where} does not exist") from None
    except OSError as error:
        raise WagleError(f"cannot read {where}: {error.strerror}") from None
    except ValueError as error:  # a path with a zero byte or half a pair
        raise WagleError(f"cannot read {where}: {error}") from None
    try:
        told = os.fstat(handle)
        if not stat.S_ISREG(told.st_mode):
            kind = "a folder" if stat.S_ISDIR(told.st_mode) else "a pipe or a device"
            raise WagleError(f"{where} is {kind}, not a file")
        if told.st_size <= most:
            data = b"".join(_chunks(handle, told.st_size, most))
            if len(data) <= most:
                return data
        raise WagleError(f"{where} is larger than the {most:,} bytes that are read of such a file")
    except OSError as error:
        raise WagleError(f"cannot read {where}: {error.strerror}") from None
    finally:
        os.close(handle)


def _chunks(handle: int, size: int, most: int) -> Iterator[bytes]:
    """The content of a file, which may grow meanwhile, up to one byte too many."""
    left = most + 1
    while left and (part := os.read(handle, min(left, max(size + 1, 1 << 16)))):
        yield part
        left -= len(part)
        size -= len(part)


def read_text(path: str | Path, most: int = MOST) -> str:
    """The content of a regular file of UTF-8 text; in all else like ``read_bytes``."""
    return decoded(read_bytes(path, most), one_line(path))


def read_key(path: str | Path) -> bytes:
    """A secret key, such as a salt: hexadecimal digits in a file of their own.

    Raises:
        WagleError: there is no such file, or it holds something else.
    """
    try:
        key = bytes.fromhex(read_text(path, most=1 << 16).strip())
    except ValueError:
        key = b""
    if not key:
        said = "it holds no hexadecimal digits; restore what the run wrote"
        raise WagleError(f"{one_line(path)} is not a key: {said}")
    return key


def decoded(data: bytes, where: str) -> str:
    """UTF-8 text without its byte order mark.

    Raises:
        WagleError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise WagleError(f"{where} is not UTF-8 text ({byte}); save it as UTF-8") from None


def read_json(path: str | Path, *, finite: bool = True, most: int = MOST) -> Any:
    """Read a JSON file; one that is missing, broken or out of bounds raises a one-line error.

    Args:
        path: the file.
        finite: refuse ``NaN`` and ``Infinity``, which are not JSON, but which others write, and
            numbers too large for a float, which are infinite otherwise.
        most: how many bytes are read.
    """
    return parse_json(read_text(path, most), one_line(path), finite=finite)


def parse_json(text: str, where: str, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        text: the text.
        where: what messages call it.
        finite: as in ``read_json``.

    Raises:
        WagleError: it is not JSON; it is nested deeper than ``DEEPEST``; a number is longer than
            ``LONGEST`` or too large for a float; a text holds half of a surrogate pair, which
            cannot be written as UTF-8.
    """
    hooks: dict[str, Any] = {"parse_constant": _refuse_constant} if finite else {}
    if _LONG.search(text):
        hooks |= {"parse_int": partial(_whole, finite), "parse_float": partial(_fraction, finite)}
    try:
        value = json.loads(text, **hooks)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(value)
    except RecursionError:
        raise WagleError(f"{where} is nested more than {DEEPEST} levels deep") from None
    except _Unfit as unfit:
        raise WagleError(f"{where} {unfit}") from None
    except json.JSONDecodeError as error:
        raise WagleError(f"{where} is not valid JSON ({error})") from None
    if _PAIR.search(text) and _has_half(value):
        raise WagleError(f"{where} holds half of a surrogate pair, which is not a character")
    return value


def _refuse_constant(word: str) -> float:
    raise _Unfit(f"is not valid JSON ({word} is not a number in it)")


def _whole(finite: bool, digits: str) -> float:
    if len(digits) > LONGEST and not finite:
        return math.copysign(math.inf, -1 if digits[0] == "-" else 1)
    if len(digits) > LONGEST:
        raise _Unfit(f"holds a number of {len(digits):,} digits")
    return int(digits)


def _fraction(finite: bool, digits: str) -> float:
    if len(digits) > LONGEST:
        raise _Unfit(f"holds a number of {len(digits):,} characters")
    number = float(digits)
    if finite and math.isinf(number):
        raise _Unfit(f"holds {digits[:20]}, which is too large a number")
    return number


def _inner(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [v for one in level for v in _inner(one) if isinstance(v, dict | list)]
        if not level:
            return
    raise RecursionError


def _has_half(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if _HALF.search(one):
                return True
        elif isinstance(one, dict | list):
            left += _inner(one)
            left += one if isinstance(one, dict) else ()
    return False


def fitting(kind: type[T], value: Any, where: str, hint: str = "restore it") -> T:
    """A JSON value, if it has the shape that its reader relies on.

    Args:
        kind: the shape, as a pydantic model or any type that pydantic can check.
        value: the value.
        where: the file, for messages.
        hint: what to do if it does not fit.

    Returns:
        The value as pydantic read it.

    Raises:
        WagleError: names the first part that does not fit.
    """
    from pydantic import ValidationError

    try:
        return cast(T, _adapter(cast(Hashable, kind)).validate_python(value, strict=True))
    except ValidationError as error:
        raise WagleError(f"{where} was altered: {first_unfit(error)}; {hint}") from None


@cache
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def first_unfit(error: Any) -> str:
    """The first problem that pydantic found, in a line: where it is, and what is expected there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ", ".join(one_line(str(part)) for part in first["loc"])
    said = re.sub(r" or instance of \w+$", "", first["msg"]).lower()  # a class says nothing
    return f"{place}: {said}" if place else said
