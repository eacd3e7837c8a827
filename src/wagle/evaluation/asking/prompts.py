"""Prompts run once; their key/value cache serves everything that is asked after them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wagle.data.batches import by_length, collate
from wagle.data.tokens import Tokens
from wagle.model.scoring import begin, keeps_all
from wagle.model.structure import device_of, to_device

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """The keys and values of token sequences that have run.

    Attributes:
        cache: B rows of keys and values.
        mask: (B, P) int64, 0 where a row of the cache holds nothing.
    """

    cache: DynamicCache
    mask: Tensor

    def select(self, rows: Sequence[int]) -> Kept:
        """These rows, as a separate cache that may be written to; a row may come twice."""
        place = torch.tensor(rows, dtype=torch.int64, device=self.mask.device)
        own = _copy(self.cache)
        if self.mask.shape[1]:
            own.batch_select_indices(place)
        return Kept(own, self.mask[place])

    def go_on(self, model: PreTrainedModel, rest: Sequence[Ids], batch_tokens: int) -> Kept:
        """Run more tokens after each row, from none to many; they end together in the cache.

        Rows that get fewer tokens than others have a gap before these. A sliding window would count
        the gap: with such a model, nothing may have run before.
        """
        lengths = [len(ids) for ids in rest]
        if not any(lengths):
            return self
        free = keeps_all(model, self.cache)
        todo = [row for row, length in enumerate(lengths) if length or not free]
        widths = [lengths[row] if free else max(lengths) for row in todo]
        pieces = []
        for chunk in by_length(widths, batch_tokens):
            rows = sorted(todo[i] for i in chunk)
            piece = self.select(rows)._run(model, [rest[row] for row in rows], widths[chunk[0]])
            pieces.append((rows, piece))
        if pieces[0][0] == list(range(len(rest))):
            return pieces[0][1]
        return self._join(pieces, max(lengths))

    def _run(self, model: PreTrainedModel, rest: Sequence[Ids], width: int) -> Kept:
        """Run tokens, left-padded to ``width``, on this cache, which grows by them."""
        tokens = [Tokens(ids, (False,) * len(ids)) for ids in rest]
        padded = collate(tokens, range(len(tokens)), side="left", multiple=1, least=width)
        batch = to_device(padded, self.mask.device)
        mask = torch.cat([self.mask, batch["attention_mask"]], dim=-1)
        model.base_model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"] + self.mask.sum(-1, keepdim=True),
            past_key_values=self.cache,
            use_cache=True,
        )
        return Kept(self.cache, mask)

    def _join(self, pieces: Sequence[tuple[Sequence[int], Kept]], width: int) -> Kept:
        """One cache of what ran piece by piece, each row's last ``width`` columns at the end."""
        count, before = self.mask.shape
        mask = torch.cat([self.mask, self.mask.new_zeros(count, width)], dim=-1)
        for rows, piece in pieces:
            new = piece.mask[:, before:]
            mask[rows, before + width - new.shape[1] :] = new
        whole = _copy(pieces[0][1].cache)
        for number, layer in enumerate(whole.layers):
            for name in ("keys", "values"):
                parts = [getattr(piece.cache.layers[number], name) for _, piece in pieces]
                old = getattr(self.cache.layers[number], name) if before else parts[0][:0, :, :0]
                kept, (_, heads, length, size) = (
                    old.shape[2],
                    parts[0].shape,
                )  # the first is the longest
                made = parts[0].new_zeros(count, heads, length, size)
                if kept:
                    made[:, :, :kept] = old
                for (rows, _), part in zip(pieces, parts, strict=True):
                    made[rows, :, length - (part.shape[2] - kept) :] = part[:, :, kept:]
                setattr(layer, name, made)
        return Kept(whole, mask)


@dataclass(frozen=True)
class Prompts:
    """Prompts that have run, except for the last token of each.

    Attributes:
        rows: which row of ``kept`` belongs to each prompt.
        kept: their cache.
    """

    rows: Mapping[Ids, int]
    kept: Kept

    @classmethod
    def run(cls, model: PreTrainedModel, prompts: Sequence[Ids], batch_tokens: int) -> Prompts:
        """Run prompts: their common beginning once, the rest left-padded.

        Args:
            model: in eval mode, without gradients.
            prompts: not empty; repeated ones run once.
            batch_tokens: padded tokens per forward pass.
        """
        device = device_of(model)
        rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        before = [prompt[:-1] for prompt in rows]
        cache = DynamicCache(config=model.config)
        shared = _common(before) if keeps_all(model, cache) else 0
        if shared:
            ids = torch.tensor([before[0][:shared]], device=device)
            cache = begin(model, ids, len(before))
        mask = torch.ones(len(before), shared, dtype=torch.int64, device=device)
        kept = Kept(cache, mask).go_on(model, [ids[shared:] for ids in before], batch_tokens)
        return cls(rows, kept)

    def take(self, prompts: Sequence[Ids]) -> Kept:
        """A cache of these prompts, in this order, to be written to; a prompt may come twice."""
        return self.kept.select([self.rows[prompt] for prompt in prompts])


def _copy(cache: DynamicCache) -> DynamicCache:
    """A cache that shares the keys and values, which are replaced and never written into."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own


def _common(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with."""
    shortest, longest = min(prompts), max(prompts)  # in dictionary order: they differ the first
    pairs = zip(shortest, longest, strict=False)
    least = min(len(shortest), len(longest))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), least)
