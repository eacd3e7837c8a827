"""The mask: which weights may change, one level per weight for a ladder of nested ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wagle.mask.algebra import Comparison, combine, compare, complement
from wagle.mask.packing import bits_per_level, level_counts, unpack
from wagle.mask.reading import FORMAT, PER_RATIO, read_mask
from wagle.mask.writing import MaskWriter
from wagle.model.structure import place
from wagle.model.weights import fingerprint
from wagle.recipe.rules import Gamma
from wagle.system.errors import WagleError, choose
from wagle.system.files.checked import save_checked, tensors_digest

_PLACES: dict[str, Callable[[str], str]] = {
    "block": lambda name: place(name)[0] or name,
    "kind": lambda name: place(name)[1],
    "parameter": lambda name: name,
}


class Selects(Protocol):
    """What masks are made from: a gradient store, which can compute scores."""

    def select(self, **asked: Any) -> Mask:
        """The mask that is asked for, by every keyword of ``Mask.from_scores``."""


class Mask(Mapping[str, Tensor]):
    """A mapping from parameter name to bool tensor (True: selected), in parameter order.

    A mask of several ratios is a ladder: ``mask.at(ratio)`` gives one of them; using a ladder as a
    mapping is an error. Excluded parameters are included, all False.

    Attributes:
        ratios: the ratios of the ladder, ascending.
        counts: how many weights each of them selects: floor(ratio * N).
        metadata: score, settings, thresholds, number of candidates N, fingerprint of the model.
    """

    def __init__(
        self,
        packed: Mapping[Any, Tensor],
        shapes: Mapping[str, tuple[int, ...]],
        ratios: Sequence[float],
        counts: Sequence[int],
        metadata: dict[str, Any],
    ) -> None:
        self._packed = packed
        self.shapes = dict(shapes)
        self.ratios = tuple(ratios)
        self.counts = tuple(counts)
        self.metadata = metadata

    @classmethod
    def from_scores(
        cls,
        store: Selects,
        *,
        score: Any = "wagle",
        gamma: Gamma = "auto",
        damping: float | str = "auto",
        settings: Mapping[str, float] | None = None,
        ratio: float | str | Sequence[float | str] | None = None,
        scope: str = "auto",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> Mask:
        """Select the weights with the largest scores: exactly floor(ratio * N) of N candidates.

        Args:
            store: gradients, from ``wagle.gradients``.
            score: the name of a score, a function of the same shape, or a mapping with one key.
            gamma: for the WAGLE score: a number on mean gradients, ``auto``, or
                ``{"theta_share": s}``, the value at which a share s of weights is theta-dominated.
            damping: for scores that divide by a curvature: a number, or ``auto``, its median.
            settings: further settings of the score, overriding its defaults.
            ratio: the share to select, or several, all from one selection; None means 0.8, or the
                ratio of the mask that the score names.
            scope: where the share is taken: ``global``, ``tensor``, ``row``, ``block``, or
                ``auto``, the scope that the score is designed for.
            include: glob patterns of parameter names; empty includes all.
            exclude: glob patterns of parameter names to leave out.
            seed: the seed for random scores.

        Source: WAGLE, Jia et al. 2024, arXiv 2410.17509.
        """
        return store.select(
            score=score,
            gamma=gamma,
            damping=damping,
            settings=settings or {},
            ratio=ratio,
            scope=scope,
            include=include,
            exclude=exclude,
            seed=seed,
        )

    @classmethod
    def from_levels(
        cls,
        levels: Mapping[str, Tensor],
        *,
        ratios: Sequence[float],
        counts: Sequence[int],
        metadata: dict[str, Any],
    ) -> Mask:
        """Make a mask from levels: how many of the ladder's ratios select each weight (uint8)."""
        shapes = {name: tuple(level.shape) for name, level in levels.items()}
        writer = MaskWriter(shapes, ratios)
        for name, level in levels.items():
            writer.add(name, level)
        return cls(*writer.finish(counts, metadata))

    def level(self, name: str) -> Tensor:
        """The levels of one parameter, in its shape, uint8; 0 where no ratio selects the weight."""
        shape = self.shapes[name]
        return unpack(self._packed[name], bits_per_level(self.ratios), math.prod(shape)).view(shape)

    def levels(self, name: str, start: int, stop: int) -> Tensor:
        """The levels of the flattened parameter from ``start``, a multiple of 8, to ``stop``."""
        bits = bits_per_level(self.ratios)
        part = self._packed[name][start * bits // 8 : -(-stop * bits // 8)]
        return unpack(part, bits, stop - start)

    def _single(self) -> None:
        if len(self.ratios) != 1:
            raise WagleError(
                f"this mask is a ladder of ratios {list(self.ratios)}; choose one with mask.at(ratio)"
            )

    @property
    def ratio(self) -> float:
        """The share of candidate weights that the mask selects."""
        self._single()
        return self.ratios[0]

    @property
    def count(self) -> int:
        """How many weights the mask selects."""
        self._single()
        return self.counts[0]

    @property
    def candidates(self) -> int:
        """N: the number of weights that the selection ranged over."""
        return int(self._told("candidates"))

    def _told(self, key: str) -> Any:
        if self.metadata.get(key) is None:
            raise WagleError(f"the mask does not say its {key}; make it again with wagle attribute")
        return self.metadata[key]

    @property
    def candidate_names(self) -> list[str]:
        """The parameters that the selection ranged over, in parameter order."""
        names = self.metadata.get("names")  # null means all of them
        inside = set(self.shapes if names is None else names)
        found = [name for name in self.shapes if name in inside]
        if sum(math.prod(self.shapes[name]) for name in found) != self.candidates:
            raise WagleError(
                "the mask does not say which parameters it selects from; make it again with "
                "wagle attribute"
            )
        return found

    def at(self, ratio: float) -> Mask:
        """The mask of one ratio of the ladder."""
        if ratio not in self.ratios:
            raise WagleError(f"the mask has no ratio {ratio} (it has {list(self.ratios)})")
        which = self.ratios.index(ratio)
        need = len(self.ratios) - which
        metadata = dict(self.metadata)
        for key in PER_RATIO:
            if metadata.get(key) is not None:
                metadata[key] = [metadata[key][which]]
        writer = MaskWriter(self.shapes, [ratio])
        for name in self.shapes:
            writer.add(name, self.level(name) >= need)
        return Mask(*writer.finish([self.counts[which]], metadata))

    def __getitem__(self, name: str) -> Tensor:
        self._single()
        if name not in self.shapes:
            raise KeyError(name)
        return self.level(name).view(torch.bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def selected(self, name: str) -> Tensor:
        """Flat indices of one parameter's selected weights, ascending, int32."""
        return self[name].view(-1).nonzero().squeeze(-1).to(torch.int32)

    def density(self, by: str = "block") -> dict[str, tuple[int, int]]:
        """(selected, weights) per ``block``, per ``kind`` of module, or per ``parameter``.

        Outside the blocks, a parameter's name serves as its block and as its kind.
        """
        self._single()
        return {key: (chosen[0], of) for key, (chosen, of) in self.densities(by).items()}

    def densities(self, by: str = "block") -> dict[str, tuple[list[int], int]]:
        """The same for every ratio of a ladder, in one pass: (selected per ratio, weights)."""
        key_of = choose(_PLACES, by, "grouping")
        found: dict[str, tuple[list[int], int]] = {}
        for name in self.shapes:
            levels = level_counts(self._packed[name], bits_per_level(self.ratios))
            # the first ratio selects the highest level, each further ratio one level more
            here = levels[: len(self.ratios)].flip(0).cumsum(0).tolist()
            chosen, weights = found.get(key_of(name), ([0] * len(here), 0))
            found[key_of(name)] = (
                [a + b for a, b in zip(chosen, here, strict=True)],
                weights + math.prod(self.shapes[name]),
            )
        return found

    def complement(self) -> Mask:
        """The candidate weights that this mask leaves out; for a ladder, a ladder of them."""
        return Mask(*complement(self))

    def compare(self, other: Mask) -> Comparison:
        """How closely this mask and another of the same model agree, compared with chance."""
        return compare(self, other)

    def _combined(self, other: object, operation: str) -> Mask:
        return Mask(*combine(operation, self, other)) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: object) -> Mask:
        """Select what either mask selects."""
        return self._combined(other, "union")

    def __and__(self, other: object) -> Mask:
        """Select what both masks select."""
        return self._combined(other, "intersection")

    def __sub__(self, other: object) -> Mask:
        """Select what this mask selects and the other does not."""
        return self._combined(other, "difference")

    def digest(self) -> str:
        """64 hex digits that identify the selection, however the mask was made."""
        return tensors_digest(self._packed)

    def check_model(
        self,
        model: nn.Module,
        *,
        allow_other_model: bool = False,
        folder: str | Path | None = None,
    ) -> None:
        """Refuse a model that the mask was not made for.

        Args:
            model: the live model, or its structure without weights.
            allow_other_model: accept other weights (a related checkpoint); names and shapes must
                agree regardless.
            folder: where to find the weights that the structure lacks.
        """
        have = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
        if have != self.shapes:
            differ = sorted(n for n in {*have, *self.shapes} if have.get(n) != self.shapes.get(n))
            raise WagleError(
                f"the mask does not fit the model: {differ[0]} is {self.shapes.get(differ[0])} in the "
                f"mask and {have.get(differ[0])} in the model"
            )
        if not allow_other_model:
            actual, wanted = fingerprint(folder or model), str(self._told("model"))
            if actual != wanted:
                raise WagleError(
                    f"the mask belongs to model {wanted[:6]}, but this is {actual[:6]}; make one "
                    "for it with wagle attribute, or set allow_other_model: true"
                )

    def save(self, path: str | Path) -> None:
        """Write the mask as safetensors: 1 bit per weight for one ratio, 4 for a ladder."""
        metadata = {
            **self.describe(),
            "parameters": [[name, list(shape)] for name, shape in self.shapes.items()],
        }
        save_checked(path, self._packed, metadata, FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read a mask; a file that is truncated, altered or contradicts itself is an error."""
        return cls(*read_mask(path))

    def describe(self) -> dict[str, Any]:
        """Describe the mask as JSON: score, settings, ratios, counts, thresholds, model."""
        return {**self.metadata, "ratios": list(self.ratios), "counts": list(self.counts)}
