"""Token batches: sorted by length, padded to their longest record; only lengths mark padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wagle.data.draws import order, uniform
from wagle.data.tokens import Tokens
from wagle.system.errors import WagleError, choose


def collate(
    tokens: Sequence[Tokens],
    index: Sequence[int],
    *,
    side: str = "right",
    multiple: int = 8,
    least: int = 0,
) -> dict[str, Tensor]:
    """Pad records into a batch.

    Args:
        tokens: B tokenised records.
        index: B numbers saying which records these are.
        side: where the padding goes: right for scoring, left for generation.
        multiple: the width is rounded up to a multiple of this.
        least: the smallest width allowed.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids`` (B, T) int64, ``scored`` (B, T) bool,
        ``index`` (B,) int64; if the records have ``labels``, these too, (n,) int64, one per scored
        token, records one after the other. The padding's id, 0, means nothing: attention comes
        from the lengths, never from ids.
    """
    longest = max(least, *(len(t.ids) for t in tokens))
    width = -(-longest // multiple) * multiple
    shape = (len(tokens), width)
    ids = torch.zeros(shape, dtype=torch.int64)
    real = torch.zeros(shape, dtype=torch.int64)
    scored = torch.zeros(shape, dtype=torch.bool)
    for row, record in enumerate(tokens):
        length = len(record.ids)
        where = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, where] = torch.tensor(record.ids)
        real[row, where] = 1
        scored[row, where] = torch.tensor(record.scored)
    positions = (real.cumsum(-1) - 1).clamp(min=0)
    labels = [label for t in tokens for label in t.labels]
    more = {"labels": torch.tensor(labels, dtype=torch.int64)} if labels else {}
    return {
        "input_ids": ids,
        "attention_mask": real,
        "position_ids": positions,
        "scored": scored,
        "index": torch.tensor(index, dtype=torch.int64),
        **more,
    }


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group records of similar length so that no group pads to more than ``batch_tokens``.

    The longest come first, so that the first batch fails if memory is short. A record longer than
    the budget is a group of its own.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        widest = lengths[groups[-1][0]] if groups else 0
        if groups and (len(groups[-1]) + 1) * widest <= batch_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def token_batches(
    tokens: Sequence[Tokens], batch_tokens: int, *, side: str = "right", multiple: int = 8
) -> list[dict[str, Tensor]]:
    """All records as length-sorted batches; ``index`` says which records each one holds."""
    groups = by_length([len(t.ids) for t in tokens], batch_tokens)
    return [
        collate([tokens[i] for i in group], group, side=side, multiple=multiple) for group in groups
    ]


# ---------------------------------------------------------------------------------------------
# Pairing: which retain record goes with which forget record, in which order


def _cycle(count: int, draws: int, seed: int, purpose: object, ids: Sequence[str]) -> list[int]:
    """``draws`` indices out of ``count``, using every record once before any repeats."""
    rounds = -(-draws // count)
    flat = [i for r in range(rounds) for i in order(seed, (purpose, r), ids)]
    return flat[:draws]


def _pairs_shuffle(epoch: int, draws: int, seed: int, ids: Sequence[str]) -> list[int]:
    """One long shuffle split into epochs: no record repeats before all have been used."""
    return _cycle(len(ids), (epoch + 1) * draws, seed, "pair", ids)[epoch * draws :]


def _pairs_random(epoch: int, draws: int, seed: int, ids: Sequence[str]) -> list[int]:
    """Independent draws, with replacement."""
    return [int(uniform(seed, "pair", epoch, i) * len(ids)) for i in range(draws)]


def _pairs_cycle(epoch: int, draws: int, seed: int, ids: Sequence[str]) -> list[int]:
    """The set in its own order, over and over."""
    del seed
    return [(epoch * draws + i) % len(ids) for i in range(draws)]


def _pairs_fixed(epoch: int, draws: int, seed: int, ids: Sequence[str]) -> list[int]:
    """The same partners in every epoch."""
    del epoch
    return _cycle(len(ids), draws, seed, "pair", ids)


PAIRINGS = {
    "shuffle": _pairs_shuffle,
    "random": _pairs_random,
    "cycle": _pairs_cycle,
    "fixed": _pairs_fixed,
}


def _quotas(draws: int, weights: Sequence[float]) -> list[int]:
    """``draws`` shared out by weight, largest remainders first."""
    exact = [draws * w / sum(weights) for w in weights]
    quotas = [int(x) for x in exact]
    rest = sorted(range(len(exact)), key=lambda i: (quotas[i] - exact[i], i))
    for i in rest[: draws - sum(quotas)]:
        quotas[i] += 1
    return quotas


def _by_domain(epoch: int, draws: int, seed: int, tokens: Sequence[Tokens]) -> list[int]:
    """Draws from weighted domains: each has its own quota and shuffle, then all are mixed."""
    domains: dict[int, list[int]] = {}
    for i, token in enumerate(tokens):
        domains.setdefault(token.domain, []).append(i)
    weights = [tokens[members[0]].weight or len(members) for members in domains.values()]
    drawn: list[int] = []
    for (name, members), quota in zip(domains.items(), _quotas(draws, weights), strict=True):
        ids = [tokens[i].id for i in members]
        cycle = _cycle(len(members), (epoch + 1) * quota, seed, ("domain", name), ids)
        drawn += [members[i] for i in cycle[epoch * quota :]]
    return [drawn[i] for i in order(seed, ("mix", epoch), [str(n) for n in range(draws)])]


def plan(
    forget: Sequence[Tokens],
    retain: Sequence[Tokens],
    *,
    epochs: int,
    seed: int,
    pairing: str = "shuffle",
    anchor: str = "forget",
) -> list[tuple[int, int]]:
    """The order of training: (forget, retain) indices, -1 where a set is absent.

    Args:
        forget: the forget records, or none.
        retain: the retain records, or none.
        epochs: passes over the anchor set; a set with weighted domains is drawn by weight.
        seed: every draw is a function of (seed, epoch, id).
        pairing: a name in PAIRINGS.
        anchor: ``forget`` or ``retain``: the set whose length defines an epoch.
    """
    choose({"forget": 0, "retain": 0}, anchor, "anchor")
    partner = choose(PAIRINGS, pairing, "pairing")
    if not forget and not retain:
        raise WagleError("there is nothing to train on: both sets are empty")
    swap = not forget or (anchor == "retain" and bool(retain))
    lead, other = (retain, forget) if swap else (forget, retain)
    pairs: list[tuple[int, int]] = []
    for epoch in range(epochs):
        if lead[0].weight is None:
            first = order(seed, ("epoch", epoch), [t.id for t in lead])
        else:
            first = _by_domain(epoch, len(lead), seed, lead)
        if not other:
            second = [-1] * len(first)
        elif other[0].weight is not None:
            second = _by_domain(epoch, len(first), seed, other)
        else:
            ranked = partner(epoch, len(first), seed, [t.id for t in other])
            # `fixed` ties a partner to the record, the others to the position in the epoch
            second = [ranked[i] for i in first] if pairing == "fixed" else ranked
        pairs += zip(second, first, strict=True) if swap else zip(first, second, strict=True)
    return pairs


@dataclass(frozen=True)
class Pairs(Dataset[dict[str, Any]]):
    """The planned pairs as a data set: item i is the i-th (forget, retain) pair of training.

    Attributes:
        pairs: (forget, retain) indices, -1 where a side is absent.
        forget: the sets of the forget side by name (the records themselves, their refusals, ...):
            entry i of each belongs to forget record i.
        retain: the same for the retain side.
    """

    pairs: list[tuple[int, int]]
    forget: Mapping[str, Sequence[Tokens]]
    retain: Mapping[str, Sequence[Tokens]]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: int) -> dict[str, Any]:
        forget, retain = self.pairs[item]
        return {"forget": forget, "retain": retain}

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch for every set that has records here, by name."""
        batch = {}
        for side, sets in (("forget", self.forget), ("retain", self.retain)):
            index = [item[side] for item in items if item[side] >= 0]
            if index:
                for name, tokens in sets.items():
                    batch[name] = collate([tokens[i] for i in index], index)
        return batch


@dataclass(frozen=True)
class Steps(Dataset[dict[str, Any]]):
    """A plan by optimiser steps: item i is this process's part of a step, as micro-batches.

    Where every process can have as many micro-batches of a step as the others, they are dealt out:
    they are those of one process, and so is how each is rounded. Else its pairs are: every process
    gets every n-th. One that has none left for its last micro-batch gets an empty one. The step is
    the same however many there are.

    Attributes:
        pairs: the planned pairs.
        per_step: pairs of a whole step, on all processes.
        size: pairs of a micro-batch, at most.
        first: the step that item 0 is.
        rank: the number of this process.
        world: how many processes share a step.
        fill: whether an empty micro-batch has a pair of another process instead, marked ``idle``:
            of a model in shards, every process must run every batch.
    """

    pairs: Pairs
    per_step: int
    size: int
    first: int = 0
    rank: int = 0
    world: int = 1
    fill: bool = False

    def __len__(self) -> int:
        return -(-len(self.pairs) // self.per_step) - self.first

    def __getitem__(self, item: int) -> dict[str, Any]:
        """``micros``, a batch per set and micro-batch, and ``counts``, the whole step's records."""
        begin = (self.first + item) * self.per_step
        whole = [self.pairs[i] for i in range(begin, min(begin + self.per_step, len(self.pairs)))]
        counts = [sum(one[side] >= 0 for one in whole) for side in ("forget", "retain")]
        return {"micros": [self._micro(own, whole) for own in self._dealt(whole)], "counts": counts}

    def _dealt(self, whole: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
        """The pairs of this process's micro-batches, some of them perhaps without any."""
        if self.per_step % (self.size * self.world) == 0:
            cut = [whole[at : at + self.size] for at in range(0, len(whole), self.size)]
            cut += [[]] * (-len(cut) % self.world)
            return cut[self.rank :: self.world]
        own = whole[self.rank :: self.world]
        most = -(-len(whole) // self.world)
        return [own[at : at + self.size] for at in range(0, most, self.size)]

    def _micro(self, own: Sequence[dict[str, Any]], whole: Sequence[dict[str, Any]]) -> Any:
        if own or not self.fill:
            return self.pairs.collate(own)
        return {name: {**one, "idle": True} for name, one in self.pairs.collate(whole[:1]).items()}
