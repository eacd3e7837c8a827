"""The protocol of OpenAI's completions: what is sent, and what is read off the answers.

A prompt is sent as token ids where the server takes them, so that it cannot split the text
otherwise; else as text. With ``echo`` and ``logprobs`` the server returns the log-probability of
every token of the prompt, and which token was likeliest there. One token is always generated: some
servers read 0 as "no limit".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from wagle.evaluation.asking.requests import LikelihoodAnswer, TextAnswer
from wagle.system.errors import WagleError

IDS, TEXT = "token ids", "text"
_NEAR = 1e-6  # log-probabilities that differ by less are of one token


@dataclass(frozen=True)
class Echo:
    """What a server says about the tokens of a prompt; None where it says nothing.

    Attributes:
        logs: the log-probability of each.
        best: the highest log-probability at each place.
    """

    logs: list[float | None]
    best: list[float | None]


def prompt_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], way: str) -> Any:
    """A prompt as it is sent: ``IDS`` or ``TEXT``."""
    if way == IDS:
        return list(ids)
    return text_of_ids(tokenizer, ids)


def text_of_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text that ids stand for, special tokens included."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def echo_body(prompt: Any) -> dict[str, Any]:
    """The request for the log-probabilities of a prompt."""
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}


def text_body(prompt: Any, count: int, stop: Sequence[str]) -> dict[str, Any]:
    """The request for a greedy answer of at most ``count`` tokens."""
    plain = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
    ends = {"stop": list(stop)} if stop else {}
    return {"prompt": prompt, "max_tokens": count, **plain, **ends}


def read_choice(reply: Any, who: str) -> dict[str, Any]:
    """The first choice of an answer, with the answer's ``usage``.

    Raises:
        WagleError: there is none.
    """
    try:
        found = reply["choices"][0]
        if isinstance(found["text"], str):
            return {**found, "usage": reply.get("usage") or {}}
    except (KeyError, IndexError, TypeError):
        pass
    raise WagleError(f"{who} answers with something that is no completion")


def read_echo(
    choice: dict[str, Any],
    ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    place: str = "",
) -> Echo | None:
    """What a server says about the tokens of a prompt; None if it says nothing.

    It may put a BOS of its own before them, and llama-cpp-python's server leaves out every BOS.
    Which of these it did shows in the number of tokens and in their texts.

    Raises:
        WagleError: its tokens are others.
    """
    told = choice.get("logprobs")
    found: dict[str, Any] = told if isinstance(told, dict) else {}
    logs = found.get("token_logprobs")
    if not isinstance(logs, list) or len(logs) <= 1 < len(ids):
        return None
    texts = [str(token) for token in found.get("tokens") or [""] * len(logs)]
    tops = found.get("top_logprobs") or [None] * len(logs)
    guess = len(logs) if len(logs) == len(ids) else len(logs) - 1  # one is generated, or none
    whole = choice["usage"].get("prompt_tokens", guess)
    starts = whole - len(ids)
    bare = [i for i, token in enumerate(ids) if token != tokenizer.bos_token_id]
    odd: list[tuple[int, str]] = []
    for shift, places in ((starts, list(range(len(ids)))), (0, bare)):
        if starts not in (0, 1) or len(logs) - shift - len(places) not in (0, 1):
            continue
        pairs = [(ids[at], texts[shift + i]) for i, at in enumerate(places)]
        odd = strangers(tokenizer, pairs)
        if not odd:
            kept: Echo = Echo([None] * len(ids), [None] * len(ids))
            for i, at in enumerate(places):
                kept.logs[at] = logs[shift + i]
                top = tops[shift + i]
                kept.best[at] = max(top.values()) if top else None
            return kept
    of = f" of {place}" if place else ""
    if odd:
        what = f"token {odd[0][0]} is {odd[0][1]!r} there and "
        what += f"{text_of_ids(tokenizer, [odd[0][0]])!r} in the tokenizer{of}"
    else:
        what = f"it sees {whole} tokens where the tokenizer makes {len(ids)}{of}"
    raise WagleError(
        f"the server has another tokenizer: {what}; name the tokenizer of the served model with "
        "--tokenizer"
    )


def read_likelihood(
    echo: Echo, context: int, scored: Sequence[bool], who: str, place: str
) -> LikelihoodAnswer:
    """The answer to a likelihood request.

    Args:
        echo: what the server says about context and continuation.
        context: how many tokens come before the continuation.
        scored: which tokens of the continuation count.
        who: the server, for messages.
        place: the record's place.

    Raises:
        WagleError: a log-probability is missing or not finite.
    """
    nll, hits = [], []
    for at, counts in enumerate(scored, context):
        if not counts:
            continue
        log, best = echo.logs[at], echo.best[at]
        if log is None or not -float("inf") < log <= _NEAR:
            raise WagleError(
                f"{who} gives log-probabilities that are missing or not finite for "
                f"{place or 'a record'}"
            )
        nll.append(-min(log, 0.0))
        hits.append(None if best is None else log >= best - _NEAR)
    known = [hit for hit in hits if hit is not None]
    right = known if len(known) == len(hits) else []
    return LikelihoodAnswer(
        torch.tensor(nll, dtype=torch.float64), torch.tensor(right, dtype=torch.bool)
    )


def read_text(
    choice: dict[str, Any], tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], most: int
) -> TextAnswer:
    """The answer to a request for text, as the tokens that the tokenizer makes of it."""
    ids = tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
    end = next((i for i, token in enumerate(ids) if token in stop_ids), None)
    finished = end is not None or choice.get("finish_reason") == "stop"
    return TextAnswer(tuple(ids if end is None else ids[:end])[:most], finished)


def strangers(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[int, str]]
) -> list[tuple[int, str]]:
    """The ids that stand for another text at the server than in the tokenizer.

    Parts of characters and special tokens are written in many ways, so they are not compared.

    Args:
        tokenizer: of the records.
        pairs: ids, and the server's text of each; "" is not compared.
    """
    special = set(tokenizer.all_special_ids)
    found = []
    for token, text in pairs:
        own = text_of_ids(tokenizer, [token]).strip()
        there = text.replace("\u0120", " ").replace("\u2581", " ").strip()
        if token in special or not (own and there and own.isascii() and there.isascii()):
            continue
        if own != there and not there.startswith(("bytes:", "token_id:", "<0x")):
            found.append((token, text))
    return found
