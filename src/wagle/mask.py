"""The mask: which weights may change, one level per weight for a ladder of nested ratios."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from wagle.errors import WagleError
from wagle.files import load_checked, save_checked
from wagle.model import fingerprint, place

if TYPE_CHECKING:
    from wagle.attribution.store import GradientStore

FORMAT = "wagle-mask/1"
Gamma: TypeAlias = "float | str | Mapping[Any, float]"
_MOST = 15  # ratios in a ladder: four bits per weight


def _pack(level: Tensor, bits: int) -> Tensor:
    """Levels (uint8, flat) as 1 or 4 bits each, the first in the lowest bits."""
    values = level.reshape(-1).numpy()
    if bits == 1:
        return torch.from_numpy(np.packbits(values, bitorder="little"))
    even = values[::2].copy()
    even[: len(values) // 2] |= values[1::2] << 4
    return torch.from_numpy(even)


def _unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    if bits == 1:
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count, bitorder="little"))
    values = np.empty(2 * len(packed), dtype=np.uint8)
    values[::2] = packed.numpy() & 0x0F
    values[1::2] = packed.numpy() >> 4
    return torch.from_numpy(values[:count])


class Mask(Mapping[str, Tensor]):
    """A mapping from parameter name to bool tensor (True: selected), in parameter order.

    A mask of several ratios is a ladder: ``mask.at(ratio)`` is one of them; using a ladder as a
    mapping is an error. Excluded parameters are there, all False.

    Attributes:
        ratios: the ratios of the ladder, ascending.
        counts: how many weights each of them selects: floor(ratio * N).
        metadata: score, settings, thresholds, candidates N, fingerprint of the model.
    """

    def __init__(
        self,
        packed: Mapping[str, Tensor],
        shapes: Mapping[str, tuple[int, ...]],
        ratios: Sequence[float],
        counts: Sequence[int],
        metadata: dict[str, Any],
    ) -> None:
        self._packed = dict(packed)
        self.shapes = dict(shapes)
        self.ratios = tuple(ratios)
        self.counts = tuple(counts)
        self.metadata = metadata

    @classmethod
    def from_scores(
        cls,
        store: GradientStore,
        *,
        score: Any = "wagle",
        gamma: Gamma = "auto",
        ratio: float | str | Sequence[float | str] = 0.8,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> Mask:
        """Select the weights with the largest scores: exactly floor(ratio * N) of N candidates.

        Args:
            store: gradients, from ``wagle.gradients``.
            score: ``wagle``, ``magnitude``, ``random``, or a function of the same shape.
            gamma: of the WAGLE score: a number on mean gradients, ``auto``, or
                ``{"theta_share": s}``, the value at which a share s of weights is theta-dominated.
            ratio: the share to select, or several of them, one selection for all.
            include: glob patterns of parameter names; empty takes all.
            exclude: glob patterns of parameter names to leave out.
            seed: of random scores.

        Source: WAGLE, Jia et al. 2024, arXiv 2410.17509.
        """
        from wagle.attribution.scoring import mask_from_scores

        return mask_from_scores(
            store,
            score=score,
            gamma=gamma,
            ratio=ratio,
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
        """Pack levels: per weight, how many of the ladder's ratios select it (uint8)."""
        if not 1 <= len(ratios) <= _MOST:
            raise WagleError(f"a ladder has 1 to {_MOST} ratios, not {len(ratios)}")
        if any(b <= a for a, b in itertools.pairwise(ratios)):
            raise WagleError(f"the ratios {list(ratios)} must ascend without repeats")
        bits = 1 if len(ratios) == 1 else 4
        packed = {name: _pack(level, bits) for name, level in levels.items()}
        shapes = {name: tuple(level.shape) for name, level in levels.items()}
        return cls(packed, shapes, ratios, counts, metadata)

    @property
    def _bits(self) -> int:
        return 1 if len(self.ratios) == 1 else 4

    def level(self, name: str) -> Tensor:
        """Levels of one parameter: (its shape), uint8, 0 where no ratio selects the weight."""
        shape = self.shapes[name]
        count = int(np.prod(shape, dtype=np.int64))
        return _unpack(self._packed[name], self._bits, count).view(shape)

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
        """N: the weights that the selection ranged over."""
        return int(self.metadata["candidates"])

    def at(self, ratio: float) -> Mask:
        """The mask of one ratio of the ladder."""
        if ratio not in self.ratios:
            raise WagleError(f"the mask has no ratio {ratio} (it has {list(self.ratios)})")
        which = self.ratios.index(ratio)
        need = len(self.ratios) - which
        levels = {name: (self.level(name) >= need).to(torch.uint8) for name in self.shapes}
        metadata = {**self.metadata, "thresholds": [self.metadata["thresholds"][which]]}
        return Mask.from_levels(
            levels, ratios=[ratio], counts=[self.counts[which]], metadata=metadata
        )

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
        """Flat indices of the selected weights of one parameter, ascending, int32."""
        return self[name].view(-1).nonzero().squeeze(-1).to(torch.int32)

    def density(self, by: str = "block") -> dict[str, tuple[int, int]]:
        """(selected, weights) per ``block``, per ``kind`` of module, or per ``parameter``.

        Outside the blocks, a parameter's name stands for both.
        """
        self._single()
        found: dict[str, tuple[int, int]] = {}
        for name in self:
            block, kind = place(name)
            if by not in {"block", "kind", "parameter"}:
                raise WagleError(f"density by {by!r} is unknown (known: block, kind, parameter)")
            key = {"block": block or name, "kind": kind, "parameter": name}[by]
            selected, weights = found.get(key, (0, 0))
            here = self[name]
            found[key] = (selected + int(torch.count_nonzero(here)), weights + here.numel())
        return found

    def check_model(self, model: nn.Module, *, allow_other_model: bool = False) -> None:
        """Refuse a model that the mask was not made for.

        Args:
            model: the live model.
            allow_other_model: accept other weights (a related checkpoint); names and shapes must
                agree in any case.
        """
        have = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
        if have != self.shapes:
            differ = sorted(n for n in {*have, *self.shapes} if have.get(n) != self.shapes.get(n))
            raise WagleError(
                f"the mask does not fit the model: {differ[0]} is {self.shapes.get(differ[0])} in the "
                f"mask and {have.get(differ[0])} in the model"
            )
        if not allow_other_model:
            actual, wanted = fingerprint(model), str(self.metadata["model"])
            if actual != wanted:
                raise WagleError(
                    f"the mask belongs to model {wanted[:6]}, this is {actual[:6]}; make one for it "
                    "with wagle attribute, or set allow_other_model: true"
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
        """Read a mask; a truncated or altered file is an error."""
        packed, metadata = load_checked(path, "mask", FORMAT)
        shapes = {name: tuple(shape) for name, shape in metadata.pop("parameters")}
        ratios, counts = metadata.pop("ratios"), metadata.pop("counts")
        return cls({n: packed[n].clone() for n in shapes}, shapes, ratios, counts, metadata)

    def describe(self) -> dict[str, Any]:
        """What the mask is, as JSON: score, settings, ratios, counts, thresholds, model."""
        return {**self.metadata, "ratios": list(self.ratios), "counts": list(self.counts)}
