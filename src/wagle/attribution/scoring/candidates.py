"""Candidates: the weights that a selection ranges over, chosen by patterns and read in chunks."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from wagle.attribution.scoring.selection import Chunks
from wagle.model.structure import place
from wagle.system.errors import WagleError
from wagle.system.processes import group
from wagle.system.processes.threads import torch_threads

T = TypeVar("T")
S = TypeVar("S")
Values: TypeAlias = dict[str, Tensor]
_CHUNK = 1 << 19  # weights: their scores and inputs stay in the processor's cache

# ---------------------------------------------------------------------------------------------
# Patterns

SHORT_NAMES = ("ffn", "attention", "embeddings", "norms", "head")
_NORMS = re.compile(r"norm|(^|\.)ln(_|\d|\.)")
_ATTENTION = re.compile(r"attn|attention")
_FFN = re.compile(r"mlp|ffn|feed_?forward|moe|expert|(^|\.)fc(_|\d|\.)")
_HEAD = re.compile(r"(^|\.)(lm_head|head|output|embed_out)\.")
_EMBEDDINGS = re.compile(r"embed|(^|\.)(wte|wpe|emb)\.")


def part_of(name: str) -> str:
    """The short name that covers a parameter, or "" if none does.

    ``model.layers.3.mlp.up_proj.weight`` is "ffn"; a norm is "norms" wherever it is.
    """
    block, kind = place(name)
    kind = kind.lower()
    if _NORMS.search(kind):
        return "norms"
    if block:
        return "attention" if _ATTENTION.search(kind) else "ffn" if _FFN.search(kind) else ""
    return "head" if _HEAD.search(kind) else "embeddings" if _EMBEDDINGS.search(kind) else ""


def _matcher(pattern: str) -> Callable[[str], bool]:
    if pattern in SHORT_NAMES:
        return lambda name: part_of(name) == pattern
    if not pattern.startswith("blocks:"):
        return lambda name: fnmatchcase(name, pattern)
    found = re.fullmatch(r"blocks:(\d+)(?:-(\d+))?", pattern, re.ASCII)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise WagleError(
            f"the pattern {pattern!r} is not a range of blocks; write blocks:4-11 or blocks:7"
        )
    inside = {str(block) for block in range(first, last + 1)}
    return lambda name: place(name)[0] in inside


def matching(names: Iterable[str], patterns: Sequence[str], what: str) -> set[str]:
    """The names that any of the patterns matches; a pattern that matches none is an error.

    A pattern is a glob on the name of a parameter, such as ``*.mlp.*``, or a short name:

        ffn          the feed-forward layers of the blocks, including experts and their routers
        attention    the attention layers of the blocks
        embeddings   token and position embeddings, including a head that is tied to them
        norms        every normalisation layer, inside and outside the blocks
        head         the output head, if it is not tied to the embeddings
        blocks:4-11  blocks 4 to 11, inclusive; blocks:7 is a single one

    Args:
        names: the names of all parameters.
        patterns: the patterns; none match nothing.
        what: what the message calls them ("include").
    """
    if isinstance(patterns, str):
        raise WagleError(f"{what} is {patterns!r}; give a list, such as [{patterns!r}]")
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        match = _matcher(pattern)
        here = {name for name in names if match(name)}
        if not here:
            tied = "; it may be tied to the embeddings" if pattern == "head" else ""
            raise WagleError(
                f"the pattern {pattern!r} matches no parameter (such as {names[0]}){tied}; short "
                f"names are {', '.join(SHORT_NAMES)} and blocks:4-11"
            )
        found |= here
    return found


def candidate_names(
    names: Iterable[str], include: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """The parameters that a selection ranges over: those that match the patterns, in order."""
    names = list(names)
    inside = matching(names, include, "include") if include else set(names)
    inside -= matching(names, exclude, "exclude")
    if not inside:
        raise WagleError("include and exclude leave no parameter to select from")
    return [name for name in names if name in inside]


# ---------------------------------------------------------------------------------------------
# Reading


def uniform_chunk(seed: int, name: str, start: int, count: int) -> Tensor:
    """Draws from [0, 1), float32: a pure function of (seed, parameter name, index)."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    bits.advance(start // 8)  # each step of the counter gives eight draws of 32 bits
    skip = start % 8
    words = bits.random_raw(-(-(skip + count) // 2)).view(np.uint32)[skip : skip + count]
    return torch.from_numpy((words >> 8).astype(np.float32) * np.float32(2.0**-24))


def in_order(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """``work(item)`` for every item, in order, on two threads: one reads, the other computes."""
    rest = iter(items)
    with torch_threads(2) as pool:
        ahead = deque(pool.submit(work, item) for item in itertools.islice(rest, 3))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(pool.submit(work, item) for item in itertools.islice(rest, 1))
            yield result


class Measured(Protocol):
    """What scoring reads from a gradient store."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    quantities: tuple[str, ...]
    transposed: frozenset[str]

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model whose gradients these are."""

    def size(self, name: str) -> int:
        """How many weights the parameter ``name`` has."""

    def has(self, quantity: str, name: str) -> bool:
        """Whether ``quantity`` was collected for the parameter ``name``."""

    def read(self, quantity: str, name: str, start: int, stop: int) -> Tensor:
        """A quantity for part of the flattened parameter, float32."""

    def check_weights(self) -> None:
        """Refuse to score weights that changed since the gradients were computed."""


@dataclass(frozen=True)
class Candidates:
    """The weights of some parameters of a store, and the draws that belong to them.

    Attributes:
        store: where the quantities come from.
        names: the names of the parameters, in parameter order.
        seed: the seed for ``uniform``.
    """

    store: Measured
    names: Sequence[str]
    seed: int = 0

    @property
    def total(self) -> int:
        """N: how many weights there are."""
        return sum(self.store.size(name) for name in self.names)

    def describe(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
        """What a mask records about its candidates and the patterns that chose them."""
        return {
            "include": list(include),
            "exclude": list(exclude),
            "names": None if len(self.names) == len(self.store.shapes) else list(self.names),
            "candidates": self.total,
            "model": self.store.model_fingerprint,
        }

    def of(self, names: Sequence[str]) -> Candidates:
        """The candidates restricted to some parameters."""
        return Candidates(self.store, names, self.seed)

    def row_length(self, name: str) -> int:
        """How many weights each output of the parameter has; a vector is one row."""
        shape = self.store.shapes[name]
        if len(shape) < 2:
            return self.store.size(name)
        return shape[-2] if name in self.store.transposed else shape[-1]

    def rows(self, name: str) -> int:
        """How many outputs the parameter has."""
        return self.store.size(name) // self.row_length(name)

    def each(
        self,
        quantities: Sequence[str],
        work: Callable[[str, Values], T],
        *,
        whole_rows: bool = False,
    ) -> Iterator[tuple[str, T]]:
        """Yield (parameter name, result of ``work``) chunk by chunk, in order.

        Of several processes, each has a contiguous part of the chunks, in the order of their ranks.

        Args:
            quantities: what to read.
            work: gets the name and, per quantity, the values of one chunk: flat, float32. It runs
                in threads.
            whole_rows: never split a row; a parameter without contiguous rows is a single chunk.
        """

        def run(span: tuple[str, int, int]) -> tuple[str, T]:
            name, start, stop = span
            values = {
                q: self.store.read(q, name, start, stop) for q in quantities if q != "uniform"
            }
            if "uniform" in quantities:
                values["uniform"] = uniform_chunk(self.seed, name, start, stop - start)
            return name, work(name, values)

        return in_order(run, self.spans(whole_rows)[group.rank()])

    def spans(self, whole_rows: bool = False) -> list[list[tuple[str, int, int]]]:
        """The chunks of every process: parameter, first weight, last weight (exclusive)."""
        every, size = list(self._spans(whole_rows)), group.world()
        ends = [len(every) * number // size for number in range(size + 1)]
        return [every[start:stop] for start, stop in pairwise(ends)]

    def _spans(self, whole_rows: bool) -> Iterator[tuple[str, int, int]]:
        for name in self.names:
            size, step = self.store.size(name), _CHUNK
            if whole_rows:
                row = self.row_length(name)
                step = size if name in self.store.transposed else max(1, _CHUNK // row) * row
            for start in range(0, size, step):
                yield name, start, min(start + step, size)


@dataclass(frozen=True)
class Measure:
    """A score with its settings: what to read, and the function to apply."""

    function: Callable[..., Tensor]
    quantities: Sequence[str]
    settings: Mapping[str, Any]

    def __call__(self, name: str, values: Values) -> Tensor:
        """The scores of one chunk of the parameter ``name``: flat, float32."""
        scores = self.function(**{q: values[q] for q in self.quantities}, **self.settings)
        expected = next(iter(values.values())).shape
        if not isinstance(scores, Tensor) or scores.shape != expected:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise WagleError(
                f"a score must have the shape of its weight; for {name} that is {tuple(expected)}, "
                f"not {got}"
            )
        return scores.float().contiguous()

    def chunks(self, candidates: Candidates) -> Chunks:
        """The scores of all candidates, for ``thresholds``."""

        def run(work: Callable[[Tensor], T]) -> Iterator[tuple[str, T]]:
            return candidates.each(self.quantities, lambda name, values: work(self(name, values)))

        return run
