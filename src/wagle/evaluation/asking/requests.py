"""Requests: what a benchmark asks a model, and the answers. All are token ids, not text.

Two requests with the same content are one: the engine asks it once. ``place``, the record's place,
is only for messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from wagle.data.tokens import Tokens
from wagle.system.errors import WagleError


@dataclass(frozen=True)
class Likelihood:
    """How likely is ``continuation`` after ``context``? Both are token ids, neither is empty.

    ``scored`` says which tokens of the continuation count (in a chat, the answers); empty: all.
    With ``moments``, the answer also tells how log-probabilities spread at each scored position.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    scored: tuple[bool, ...] = ()
    moments: bool = False
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Greedy:
    """What does the model say after ``context``, at most ``max_new_tokens``?"""

    context: tuple[int, ...]
    max_new_tokens: int
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Sample:
    """One continuation drawn at a temperature: the draw depends only on ``key`` and the model.

    Attributes:
        context: token ids, not empty.
        max_new_tokens: at most.
        temperature: above 0.
        top_p: the smallest set of tokens of at least this probability is drawn from, 0 to 1.
        key: the key of the draw, such as ``"0/forget[3]/17"``: run seed, record, sample number.
        place: the record's place.
    """

    context: tuple[int, ...]
    max_new_tokens: int
    temperature: float
    top_p: float
    key: str
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class HiddenStates:
    """The residual stream after every block at some ``positions`` of ``ids``."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class GradientNorm:
    """How large is d(mean NLL of ``continuation``)/d(weights)? The fields are ``Likelihood``'s."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    scored: tuple[bool, ...] = ()
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class LikelihoodAnswer:
    """Per scored token: its NLL (float64) and whether the arg-max is right (bool; empty: unknown).

    ``moments`` (n, 2) float64, if asked for: the mean and the variance of the log-probability under
    the model's own distribution at each scored position.
    """

    token_nll: Tensor
    hit: Tensor
    moments: Tensor | None = None

    @property
    def total(self) -> float:
        """S: the summed NLL in nats."""
        return float(self.token_nll.sum())

    @property
    def mean(self) -> float:
        """M: the mean NLL in nats."""
        return float(self.token_nll.mean())


@dataclass(frozen=True)
class TextAnswer:
    """The ids that the model wrote, without the stop id, and whether it ended by itself."""

    ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class StatesAnswer:
    """(blocks, positions, width) float32."""

    states: Tensor


@dataclass(frozen=True)
class NormAnswer:
    """L2 norms of the gradient, model in eval mode, tied weights once.

    Attributes:
        whole: the norm over all parameters as one vector.
        mean: the mean of the norms of the parameters (OpenUnlearning's figure).
    """

    whole: float
    mean: float


Request: TypeAlias = Likelihood | Greedy | Sample | HiddenStates | GradientNorm
Reply: TypeAlias = LikelihoodAnswer | TextAnswer | StatesAnswer | NormAnswer


LIKELIHOODS, ARGMAX, MOMENTS = "log-probabilities", "arg-max tokens", "whole distributions"
TEXTS, SAMPLES, STATES, GRADIENTS = "texts", "keyed samples", "hidden states", "gradients"
_ANSWERED_BY: dict[type, str] = {
    Likelihood: LIKELIHOODS,
    Greedy: TEXTS,
    Sample: SAMPLES,
    HiddenStates: STATES,
    GradientNorm: GRADIENTS,
}


class Answers:
    """The answer to every request, with a method for each kind of request.

    Args:
        found: the answers by request.
        absent: what the model cannot be asked for, and why, as a sentence without a full stop:
            LIKELIHOODS and so on. A request that needs it has no answer; asking for one is an
            error with that sentence.
    """

    def __init__(
        self,
        found: dict[Request, Reply] | None = None,
        absent: Mapping[str, str] | None = None,
    ) -> None:
        self.found: dict[Request, Reply] = found if found is not None else {}
        self.absent: Mapping[str, str] = absent if absent is not None else {}

    def __getitem__(self, request: Request) -> Reply:
        if request not in self.found and (why := self.absent.get(_ANSWERED_BY[type(request)])):
            raise WagleError(f"{why}; use the benchmark qa, or evaluate the model's folder")
        return self.found[request]

    def __contains__(self, request: Request) -> bool:
        return request in self.found

    def __len__(self) -> int:
        return len(self.found)

    def likelihood(self, request: Likelihood) -> LikelihoodAnswer:
        """The answer to a likelihood request."""
        found = self[request]
        assert isinstance(found, LikelihoodAnswer)
        return found

    def text(self, request: Greedy | Sample) -> TextAnswer:
        """The answer to a greedy or a sampled request."""
        found = self[request]
        assert isinstance(found, TextAnswer)
        return found

    def states(self, request: HiddenStates) -> Tensor:
        """(blocks, positions, width) float32 hidden states."""
        found = self[request]
        assert isinstance(found, StatesAnswer)
        return found.states

    def norm(self, request: GradientNorm) -> NormAnswer:
        """The answer to a gradient request."""
        found = self[request]
        assert isinstance(found, NormAnswer)
        return found


def not_finite(what: str, dtype: torch.dtype, model: nn.Module, place: str) -> WagleError:
    """The error for a model whose answers are not finite numbers.

    Args:
        what: what the answers are.
        dtype: the dtype they came in.
        model: the model; its folder is named if it was loaded from one.
        place: the record's place, or empty.
    """
    if dtype == torch.float32:
        mend = "its weights are unusable: check how it was made"
    else:
        mend = "evaluate it with precision: float32, and store its weights in float32"
    folder = getattr(model, "name_or_path", "")
    named = f"the model {folder}" if folder else "the model"
    where = f" for {place}" if place else ""
    return WagleError(f"{named} gives {what} that are not finite{where}; {mend}")


def likelihood(tokens: Tokens) -> Likelihood:
    """A request for the likelihood of the scored part of ``tokens``."""
    scored = tokens.scored[len(tokens.context) :]
    return Likelihood(tokens.context, tokens.continuation, scored, place=tokens.place)


def windows(
    ids: Sequence[int], length: int, prefix: int | None, place: str = ""
) -> list[Likelihood]:
    """A long text as requests that score every id of it once (after the first, without prefix).

    The first window has ``prefix`` as its context; every later one has the last id of the one
    before.

    Args:
        ids: the ids of the text.
        length: the most tokens of a window, its context included.
        prefix: the BOS, or the EOS of a tokenizer without one; None: the first id is the context
            and is not scored.
        place: the record's place.
    """
    whole = ([] if prefix is None else [prefix]) + list(ids)
    starts = range(0, len(whole) - 1, length - 1)
    return [
        Likelihood((whole[start],), tuple(whole[start + 1 : start + length]), place=place)
        for start in starts
    ]
