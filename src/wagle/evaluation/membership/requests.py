"""What membership attacks ask about texts and answers.

The sets are ``forget`` and ``holdout``, records of the same kind that no model was trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import torch

from wagle.data.chat import to_last_answer
from wagle.data.records import Record
from wagle.data.tokens import Tokens
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Likelihood,
    Request,
    likelihood,
    windows,
)
from wagle.metrics.membership import MEMBERSHIP_ATTACKS, Trace, check_share, zlib_size
from wagle.system.errors import WagleError, choose

logger = logging.getLogger(__name__)
Decode: TypeAlias = Callable[[Sequence[int]], str]

FOUR = ("loss", "zlib", "min_k", "min_k++")  # attacks, OpenUnlearning's
SHARE = 0.4  # of the tokens, which min_k and min_k++ use by default
_OF_SHARES = ("min_k", "min_k++")  # attacks that use a share of the tokens
_UNITS = {
    "loss": "nats per token",
    "zlib": "nats per token and byte",
    "zlib_sum": "nats per byte",
    "lower": "ratio",
    "min_k": "nats per token",
    "min_k++": "standard deviations",
    "gradnorm": "gradient norm",
}


class Attack(NamedTuple):
    """An attack with its settings, and the unit of its scores."""

    score: Callable[[Trace], float]
    unit: str


def attack_table(
    names: Iterable[str] | None = None, shares: Sequence[float] | None = None
) -> dict[str, Attack]:
    """The attacks with their settings, by the name of their figures: ``min_k``, ``min_k_20``, ...

    Args:
        names: names in MEMBERSHIP_ATTACKS; None: those that need only one model's forward passes.
            What ``reference`` needs comes with the reference: see ``leakage_figures``.
        shares: shares of tokens for ``min_k`` and ``min_k++``; the first keeps the plain names, the
            others add their percentage. None: 0.4.

    Raises:
        WagleError: an attack is unknown or needs a reference; there is no attack or share, or a
            share is invalid.
    """
    chosen = [n for n in _UNITS if n != "gradnorm"] if names is None else list(names)
    parts = [SHARE] if shares is None else shares
    if not chosen or not parts:
        raise WagleError(
            "attacks or k is empty; name at least one attack and one share, such as 0.4"
        )
    for k in parts:
        check_share(k)
    table: dict[str, Attack] = {}
    for name in chosen:
        score = choose(MEMBERSHIP_ATTACKS, name, "membership attack")
        if name not in _UNITS:
            raise WagleError(f"the attack {name} comes with a reference model; leave it out")
        if name not in _OF_SHARES:
            table[name] = Attack(score, _UNITS[name])
            continue
        for number, k in enumerate(parts):
            label = name if number == 0 else f"{name}_{100 * k:g}".replace(".", "_")
            table[label] = Attack(partial(score, k=k), _UNITS[name])
    return table


def headline_share(table: Mapping[str, Attack], shares: Sequence[float] | None) -> float | None:
    """The share of tokens behind the plain name of its attack; None: no attack has one."""
    return (shares or [SHARE])[0] if set(_OF_SHARES) & table.keys() else None


# ---------------------------------------------------------------------------------------------
# Probes


@dataclass(frozen=True)
class Probe:
    """What the attacks ask about one text or answer.

    Attributes:
        place: its record's place.
        size: the bytes of the compressed text; None for what is not text.
        own: the text in windows, or the answer; its scored tokens count.
        lowered: the same in lower case, or empty.
        gradient: the gradient request of its first window, or None.
        closed: whether the last scored token of ``own`` is an EOS, which does not count.
        ending: whether the attacks on the mean count it nevertheless, as in OpenUnlearning.
    """

    place: str
    size: int | None
    own: Sequence[Likelihood]
    lowered: Sequence[Likelihood]
    gradient: GradientNorm | None
    closed: bool = False
    ending: bool = False

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [*self.own, *self.lowered, *([self.gradient] if self.gradient else [])]

    def trace(self, answers: Answers, *, mean_norm: bool = False) -> Trace:
        """What the attacks use; ``mean_norm`` takes OpenUnlearning's gradient norm."""
        own = [answers.likelihood(request) for request in self.own]
        nll = torch.cat([one.token_nll for one in own])
        stop = len(nll) - self.closed
        moments = [one.moments for one in own if one.moments is not None]
        lowered = [answers.likelihood(request).token_nll for request in self.lowered]
        norm = answers.norm(self.gradient) if self.gradient else None
        return Trace(
            self.place,
            nll[:stop],
            moments=torch.cat(moments)[:stop] if moments else None,
            lower=float(torch.cat(lowered).mean()) if lowered else None,
            size=self.size,
            gradient=None if norm is None else norm.mean if mean_norm else norm.whole,
            ending=float(nll[-1]) if self.ending and self.closed else None,
        )


def probe_text(
    place: str,
    text: str,
    encode: Callable[[str], Sequence[int]],
    attacks: Mapping[str, Attack],
    window: int,
    peer: Decode | None = None,
) -> Probe:
    """Ask what some attacks need to know about a raw text; every token after the first counts.

    Args:
        place: the place of the text's record.
        text: the text as it is.
        encode: turns a text into ids, with a BOS if the tokenizer adds one.
        attacks: from ``attack_table``.
        window: the most tokens that are read at once; later windows start afresh.
        peer: count as OpenUnlearning does: the first window alone, whose last token passes for an
            EOS, and the size of the scored text; this turns ids into that text. None: do not.

    Raises:
        WagleError: the text has fewer than two tokens.
    """
    own = windows(encode(text), window, None, place)
    own = own if peer is None else own[:1]
    lowered = windows(encode(text.lower()), window, None, place) if "lower" in attacks else []
    if not own or ("lower" in attacks and not lowered):
        raise WagleError(f"{place} is a single token; a membership attack scores what follows one")
    first = own[0].continuation
    counted = first if peer is None else first[:-1] or first
    return Probe(
        place,
        zlib_size(text if peer is None else peer(first)),
        _with_moments(own, attacks),
        lowered,
        GradientNorm(own[0].context, counted, place=place) if "gradnorm" in attacks else None,
        closed=len(counted) < len(first),
        ending=peer is not None,
    )


def probe_answers(
    records: Sequence[Record],
    encode: Callable[[Sequence[Record]], Sequence[Tokens]],
    attacks: Mapping[str, Attack],
    peer: Decode | None = None,
) -> list[Probe]:
    """Ask what some attacks need to know about records' answers: what is scored, except the EOS.

    A prompt is asked as it is; the attack ``lower`` puts the answer after it in lower case.

    Args:
        records: questions, chats, texts (after their first token) or tokens.
        encode: turns a record into tokens, a long text into several windows.
        attacks: from ``attack_table``.
        peer: count as OpenUnlearning does: ``loss`` and ``zlib`` count an EOS, and the size is that
            of the scored ids, which this turns into text. None: do not.

    Raises:
        WagleError: an attack reads the text of a record that is tokens; only an EOS of a record is
            scored.
    """
    made = _by_place(encode(records))
    lowered = (
        _by_place(encode([_lower_case(record) for record in records])) if "lower" in attacks else {}
    )
    return [_probe(r, made[r.place], lowered.get(r.place, ()), attacks, peer) for r in records]


def _probe(
    record: Record,
    made: Sequence[Tokens],
    lowered: Sequence[Tokens],
    attacks: Mapping[str, Attack],
    peer: Decode | None,
) -> Probe:
    counted = _unclosed(record, made)
    if record.kind == "tokens" and {"zlib", "zlib_sum"} & attacks.keys():
        raise _no_text(record, "zlib")
    first, text = counted[0], _scored_text(record)
    if peer is not None:
        text = peer([i for t in made for i, on in zip(t.ids, t.scored, strict=True) if on])
    return Probe(
        record.place,
        None if record.kind == "tokens" else zlib_size(text),
        _with_moments([likelihood(tokens) for tokens in made], attacks),
        _unclosed(record, lowered) if lowered else [],
        GradientNorm(first.context, first.continuation, first.scored, record.place)
        if "gradnorm" in attacks
        else None,
        made[-1].closed,
        peer is not None,
    )


def _by_place(encoded: Sequence[Tokens]) -> dict[str, list[Tokens]]:
    found: dict[str, list[Tokens]] = {}
    for tokens in encoded:
        found.setdefault(tokens.place, []).append(tokens)
    return found


def _unclosed(record: Record, made: Sequence[Tokens]) -> list[Likelihood]:
    """What counts in some windows: everything scored, except the EOS at the end."""
    asked = [likelihood(tokens) for tokens in made]
    last = asked[-1]
    if made[-1].closed:
        asked[-1] = replace(last, continuation=last.continuation[:-1], scored=last.scored[:-1])
    counted = [one for one in asked if any(one.scored)]
    if not counted:
        raise WagleError(
            f"{record.place} has no scored token but its EOS, and a membership attack needs one; "
            "leave it out"
        )
    return counted


def _with_moments(own: Sequence[Likelihood], attacks: Mapping[str, Attack]) -> list[Likelihood]:
    moments = any(label.startswith("min_k++") for label in attacks)
    return [replace(one, moments=moments) for one in own]


def _lower_case(record: Record) -> Record:
    """The record with its scored text in lower case."""
    if record.kind == "tokens":
        raise _no_text(record, "lower")
    turns = tuple(
        turn._replace(content=turn.content.lower())
        if number >= record.given and turn.role == "assistant"
        else turn
        for number, turn in enumerate(record.messages)
    )
    return replace(record, answer=record.answer.lower(), messages=turns)


def _scored_text(record: Record) -> str:
    """The scored text: an answer, all answers of a chat, or a text after its prefix."""
    if record.kind != "chat":
        return record.answer
    scored = to_last_answer(record.messages)[record.given :]
    return "\n".join(turn.content for turn in scored if turn.role == "assistant")


def _no_text(record: Record, attack: str) -> WagleError:
    return WagleError(
        f"{record.place} is tokens, and the membership attack {attack} needs text; name others as "
        "attacks: loss, min_k, min_k++ or gradnorm"
    )
