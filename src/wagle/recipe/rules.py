"""Rules that a recipe and Python share: ladders, gamma, damping, scores that are mappings.

Each rule is stated once, here. A value that breaks one raises ``Unfit``; the caller turns that into
its own message, which names a key of the recipe or an argument in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Gamma: TypeAlias = "float | str | Mapping[Any, float]"
Number: TypeAlias = Callable[[Any], "float | None"]

MOST_RATIOS = 15  # in a ladder: four bits per weight of a mask
OF_MASK = ("random_like", "complement")  # {kind: MASK}, over the candidates of that mask
OF_PATTERNS = ("by_name",)  # {kind: [PATTERN, ...]}, over the candidates of include and exclude
UNSCORED = (*OF_MASK, *OF_PATTERNS)  # choices of weights without a score, each with its own ratio

_BESIDE = {
    "mu": ("accumulation", "records"),
    "theta_share": (),
}  # the further keys that each kind of gamma may have
_WHOLE = ("accumulation", "records")


class Unfit(ValueError):
    """A value that breaks a rule.

    Attributes:
        rule: which rule, in a word: callers keep their messages by it.
        key: the key whose value in a mapping breaks it; "" means the whole.
        value: the part that breaks it.
    """

    def __init__(self, rule: str, value: Any, key: str = "") -> None:
        super().__init__(rule)
        self.rule, self.value, self.key = rule, value, key


def check_ladder(ratios: Sequence[T], exact: Callable[[T], Any]) -> None:
    """Check that there are 1 to 15 ratios, ascending without repeats.

    Args:
        ratios: each in (0, 1].
        exact: gives the number that a ratio stands for, to compare it with its neighbours.

    Raises:
        Unfit: ``length`` or ``order``.
    """
    if not 1 <= len(ratios) <= MOST_RATIOS:
        raise Unfit("length", len(ratios))
    if any(low >= high for low, high in pairwise([exact(one) for one in ratios])):
        raise Unfit("order", ratios)


def parse_gamma(gamma: Any, number: Number) -> float | str | dict[str, float]:
    """Read a gamma in any of its forms.

    ``auto``, ``curvature``, a number above 0, ``{"theta_share": s}`` with 0 < s < 1, or ``{"mu":
    m}`` with optional whole numbers ``accumulation`` and ``records``, all above 0.

    Args:
        gamma: the given value.
        number: reads a number as the caller writes it; None if it is not one.

    Raises:
        Unfit: ``form`` for the whole; ``key``, ``number``, ``positive``, ``share`` or ``whole`` for
            a part.
    """
    if not isinstance(gamma, Mapping):
        return _word_or_positive(gamma, ("auto", "curvature"), number)
    kind = gamma_kind(gamma)
    if kind is None:
        raise Unfit("form", gamma)
    for key, value in gamma.items():
        if key != kind and key not in _BESIDE[kind]:
            raise Unfit("key", value, key)
    return {key: _gamma_part(key, value, number) for key, value in gamma.items()}


def gamma_kind(gamma: Mapping[Any, Any]) -> str | None:
    """The key that tells which kind of gamma a mapping is."""
    return next((kind for kind in _BESIDE if kind in gamma), None)


def gamma_keys(kind: str) -> tuple[str, ...]:
    """The keys that a gamma of this kind may have."""
    return (kind, *_BESIDE[kind])


def _gamma_part(key: str, value: Any, number: Number) -> float:
    found = number(value)
    if found is None:
        raise Unfit("number", value, key)
    if not found > 0:
        raise Unfit("positive", value, key)
    if key == "theta_share" and not found < 1:
        raise Unfit("share", value, key)
    if key in _WHOLE and found != int(found):
        raise Unfit("whole", value, key)
    return found


def parse_damping(damping: Any, number: Number) -> float | str:
    """``auto``, or a number above 0.

    Raises:
        Unfit: ``form``.
    """
    return _word_or_positive(damping, ("auto",), number)


def _word_or_positive(value: Any, words: Sequence[str], number: Number) -> float | str:
    if isinstance(value, str) and value in words:
        return value
    found = number(value)
    if found is None or not found > 0:
        raise Unfit("form", value)
    return found


def parse_unscored(score: Mapping[Any, Any], is_mask: Callable[[Any], bool]) -> tuple[str, Any]:
    """The one key of a score that is a mapping, and its value: a mask, or a list of patterns.

    Args:
        score: the given mapping.
        is_mask: whether a value stands for a mask, in the form that the caller accepts.

    Raises:
        Unfit: ``keys`` for the whole; ``mask`` or ``patterns`` for the value.
    """
    if len(score) != 1 or next(iter(score)) not in UNSCORED:
        raise Unfit("keys", score)
    ((kind, value),) = score.items()
    if kind in OF_MASK:
        if not is_mask(value):
            raise Unfit("mask", value, kind)
        return kind, value
    patterns = list(value) if isinstance(value, list | tuple) else []
    if not patterns or not all(isinstance(one, str) and one for one in patterns):
        raise Unfit("patterns", value, kind)
    return kind, patterns
