"""Raw text as token ids, for benchmarks that ask without a template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from wagle.data.tokens import Encoder, leading_bos, text_of
from wagle.system.errors import WagleError


def tokenizer_of(encoder: Encoder, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer, which a benchmark of texts needs."""
    if encoder.tokenizer is None:
        raise WagleError(f"{what} needs a tokenizer; its data is text")
    return encoder.tokenizer


class Raw(NamedTuple):
    """A text as token ids: ``first`` is the BOS if the tokenizer adds one, else empty.

    ``starts`` gives, for each of ``ids``, where in the text it begins.
    """

    first: tuple[int, ...]
    ids: tuple[int, ...]
    starts: tuple[int, ...]


def raw_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Raw:
    """Tokenise a text as it is: no template, no EOS."""
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    return Raw(
        leading_bos(tokenizer),
        tuple(coded["input_ids"]),
        tuple(left for left, _ in coded["offset_mapping"]),
    )


def raw_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, limit: int, place: str
) -> tuple[tuple[int, ...], bool]:
    """A text to continue, and whether it was cut: a text that is too long keeps its end.

    Args:
        tokenizer: the model's tokenizer.
        text: the prompt.
        limit: the most tokens, a BOS included.
        place: the record's place, for the message.

    Raises:
        WagleError: a prompt without a token.
    """
    raw = raw_ids(tokenizer, text)
    room = max(limit - len(raw.first), 1)
    ids = (*raw.first, *raw.ids[-room:])
    if not ids:
        raise WagleError(f"{place} has an empty prompt; remove it or fill it in")
    return ids, len(raw.ids) > room


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens and outer blanks."""
    return text_of(tokenizer, ids).strip()
