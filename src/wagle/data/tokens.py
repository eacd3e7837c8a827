"""Records to tokens: the prompt, the answer, and which tokens are scored."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wagle.data.chat import Turn, render, to_last_answer
from wagle.data.records import Record
from wagle.data.templates import TEMPLATES
from wagle.system.errors import WagleError, choose
from wagle.system.kept import Kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
_ROOM = 2**20  # the most tokens that an encoder remembers, about 50 MB


@dataclass(frozen=True)
class Tokens:
    """A tokenised record: ``ids`` and, for each, whether it is ``scored`` (never position 0).

    ``whole`` is False if the answer was cut at the length limit; ``closed`` is True if the last
    token is the EOS or end of turn that the encoder added; ``domain`` and ``weight`` are the
    record's; ``labels``, one per scored token, are the tokens to predict instead, or empty.
    """

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    id: str = ""
    place: str = ""
    whole: bool = True
    closed: bool = False
    domain: int = 0
    weight: float | None = None
    labels: tuple[int, ...] = ()

    @property
    def context(self) -> tuple[int, ...]:
        """The tokens before the first scored one."""
        return self.ids[: self.scored.index(True)]

    @property
    def continuation(self) -> tuple[int, ...]:
        """The first scored token and all that follow; in a chat, other people's turns too."""
        return self.ids[self.scored.index(True) :]

    @property
    def last_context(self) -> tuple[int, ...]:
        """The tokens before the last answer; differs from ``context`` only in a multi-turn chat.

        A model that is asked for its own answer continues from here.
        """
        stop = len(self.scored) - self.scored[::-1].index(True)
        return self.ids[: stop - self.scored[:stop][::-1].index(False)]


def _size(made: list[Tokens]) -> int:
    return sum(len(tokens.ids) for tokens in made)


class Encoder:
    """Turns records into tokens with one tokenizer, one template and one length limit.

    Args:
        tokenizer: a fast tokenizer (offsets are needed); None reads only pre-tokenised records.
        template: ``auto`` (the tokenizer's chat template, else ``plain``) or a name in TEMPLATES.
        system_prompt: the system turn for the chat template; None keeps the template's own.
        max_length: the most tokens a record may have.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        template: str = "auto",
        system_prompt: str | None = None,
        max_length: int = 512,
    ) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.max_length = max_length
        self._told: set[str] = set()  # records for which a cut was already reported
        self._made: Kept[list[Tokens]] = Kept(_ROOM, _size)
        if tokenizer is not None and not tokenizer.is_fast:
            raise WagleError(f"{type(tokenizer).__name__} has no offsets; use a fast tokenizer")
        chat = tokenizer is not None and bool(tokenizer.chat_template)
        if template == "chat" and not chat:
            raise WagleError("template is chat, but the tokenizer has no chat template")
        self.template = ("chat" if chat else "plain") if template == "auto" else template
        if self.template != "chat":
            choose(TEMPLATES, self.template, "template")
        if system_prompt is not None and self.template != "chat":
            raise WagleError(f"system_prompt needs a chat template, not {self.template!r}")

    def describe(self) -> dict[str, Any]:
        """The template as stored with a run: its name and a filled-in example."""
        example = ""
        if self.tokenizer is not None:
            example = "".join(self._render("QUESTION", "ANSWER", (), "the example"))
        return {
            "name": self.template,
            "example": example,
            "system_prompt": self.system_prompt,
            "max_length": self.max_length,
        }

    def encode(self, records: Sequence[Record]) -> list[Tokens]:
        """Tokenise records; a text longer than the limit is split into several windows."""
        encoded: list[Tokens] = []
        cut = set()
        for record in records:
            if record.kind == "tokens":
                made = [self._ready(record)]
            elif record.kind == "text":
                made = self._once(self._windows, record, record.prompt, record.answer)
            elif record.kind == "chat":
                made = [self._chat(record)]
            else:
                made = [self.answer(record, record.prompt, record.answer)]
            if not made[0].whole:
                cut.add(record.id)
            encoded += [replace(t, domain=record.domain, weight=record.weight) for t in made]
        if cut - self._told:
            logger.warning(
                "%d of %d answers do not fit into max_length=%d and were truncated; "
                "raise model.max_length",
                len(cut),
                len(records),
                self.max_length,
            )
            self._told |= cut
        return encoded

    def _once(self, make: Any, record: Record, *given: Any) -> list[Tokens]:
        """The result of ``make`` for a record, made once; it reads only ``given`` and the name."""
        key = (record.id, record.place, *given)
        return self._made.get(key, lambda: make(record, *given))

    def _ready(self, record: Record) -> Tokens:
        if len(record.input_ids) > self.max_length:
            raise WagleError(
                f"{record.place} has {len(record.input_ids)} tokens, more than max_length="
                f"{self.max_length}; raise it or cut the record"
            )
        scored = (False, *(label != -100 for label in record.labels[1:]))
        return Tokens(record.input_ids, scored, record.id, record.place)

    def answer(self, record: Record, prompt: str, answer: str) -> Tokens:
        """Tokenise one answer to one question of ``record`` (its own, or a paraphrase).

        The prompt is kept whole and the answer is cut at ``max_length``; a prompt that leaves no
        room for an answer is an error.
        """
        self._need_tokenizer(record)
        if not answer.strip():
            raise WagleError(f"{record.place} has an empty answer; remove it or fill it in")
        head, body, tail = self._render(prompt, answer, record.few_shot, record.place)
        answers = ((len(head), len(head) + len(body)),)
        return self._once(self._mark, record, head + body + tail, answers)[0]

    def replaced(self, record: Record, answer: str) -> Tokens:
        """Tokenise a record with another answer; only that answer is scored.

        Args:
            record: a question, or a chat, whose last assistant turn is then replaced.
            answer: the new answer, such as a refusal.

        Raises:
            WagleError: a record without a question; an answer that is empty or does not fit.
        """
        if record.kind == "qa":
            made = self.answer(record, record.prompt, answer)
        elif record.kind == "chat":
            if not answer.strip():
                raise WagleError(f"{record.place} has an empty answer; remove it or fill it in")
            turns = [*to_last_answer(record.messages)[:-1], Turn("assistant", answer)]
            text, answers = self._written(record, turns)
            made = self._once(self._mark, record, text, tuple(answers[-1:]))[0]
        else:
            what = "a text" if record.kind == "text" else "tokens"
            raise WagleError(
                f"refusals need questions: {record.place} is {what}; use qa or chat records or "
                "another objective"
            )
        return replace(made, domain=record.domain, weight=record.weight)

    def _chat(self, record: Record) -> Tokens:
        """Tokenise a chat up to its last answer; every answer after the given turns is scored."""
        turns = to_last_answer(record.messages)
        text, answers = self._written(record, turns)
        given = sum(turn.role == "assistant" for turn in turns[: record.given])
        return self._once(self._mark, record, text, tuple(answers[given:]))[0]

    def _written(self, record: Record, turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a chat, and where each assistant turn starts and ends in it."""
        tokenizer = self._need_tokenizer(record)
        if self.template != "chat":
            has = bool(tokenizer.chat_template)
            todo = "set template: chat" if has else "use a tokenizer with one, or qa records"
            raise WagleError(
                f"{record.place} has chat messages, which need a chat template, not "
                f"{self.template!r}; {todo}"
            )
        if self.system_prompt is not None and all(turn.role != "system" for turn in turns):
            turns = [Turn("system", self.system_prompt), *turns]
        return render(tokenizer, turns, record.place)

    def _mark(self, record: Record, text: str, answers: Sequence[tuple[int, int]]) -> list[Tokens]:
        """Tokenise a text; score its ``answers``, (start, end) in order, and the end of each."""
        tokenizer = self._need_tokenizer(record)
        ids, lefts, rights = self._coded(tokenizer, text)
        scored = [False] * len(ids)
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        ends = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        limits = [bisect_left(lefts, start) for start, _ in answers[1:]] + [len(ids)]
        for (start, end), limit in zip(answers, limits, strict=True):
            first, last = bisect_left(lefts, start), bisect_left(lefts, end)
            # A token across the border belongs to the answer if only whitespace is left of it.
            if first and rights[first - 1] > start and not text[lefts[first - 1] : start].strip():
                first -= 1
            close = next((i for i in range(last, limit) if ids[i] in ends), limit)
            # A BOS closes nothing: it opens the next turn if a template writes no ends.
            closed = close < limit and (ids[close] != bos or bos == eos)
            last = close + 1 if closed else last
            scored[first:last] = [True] * (last - first)
        if not closed:
            scored[last:close] = [True] * (close - last)
        stop = last if closed else close  # what follows belongs to the next turn
        added = [] if closed or eos is None else [eos]
        ids, scored = [*ids[:stop], *added], [*scored[:stop], *(True for _ in added)]
        scored[0] = False
        limit = self.max_length
        if True not in scored[:limit]:
            what = (
                f"everything scored in {record.place} lies beyond max_length={limit} tokens"
                if record.kind == "chat"
                else f"the prompt of {record.place} leaves no room for an answer within "
                f"max_length={limit} tokens"
            )
            raise WagleError(f"{what}; raise it or shorten the prompt")
        whole = len(ids) <= limit
        closed = whole and (closed or bool(added))
        marks = (tuple(ids[:limit]), tuple(scored[:limit]))
        return [Tokens(*marks, record.id, record.place, whole=whole, closed=closed)]

    def _coded(
        self, tokenizer: PreTrainedTokenizerBase, text: str
    ) -> tuple[list[int], list[int], list[int]]:
        """The tokens of a text without the tokenizer's own EOS, and where each starts and ends."""
        coded = tokenizer(
            text,
            add_special_tokens=self.template != "chat",
            return_offsets_mapping=True,
            truncation=False,
        )
        ids, offsets = list(coded["input_ids"]), list(coded["offset_mapping"])
        special = set(tokenizer.all_special_ids)
        while ids and ids[-1] in special and offsets[-1][0] == offsets[-1][1]:
            del ids[-1], offsets[-1]
        return ids, [left for left, _ in offsets], [right for _, right in offsets]

    def _render(
        self, prompt: str, answer: str, shots: Sequence[tuple[str, str]], place: str
    ) -> tuple[str, str, str]:
        """The text before the answer, the answer, and the text after it."""
        if self.template != "chat":
            form = TEMPLATES[self.template]
            before = "".join(form.question.format(prompt=q) + a + form.between for q, a in shots)
            return before + form.question.format(prompt=prompt), answer, form.end
        assert self.tokenizer is not None
        turns = [] if self.system_prompt is None else [Turn("system", self.system_prompt)]
        for question, reply in [*shots, (prompt, answer)]:
            turns += [Turn("user", question), Turn("assistant", reply)]
        text, answers = render(self.tokenizer, turns, place)
        start, end = answers[-1]
        return text[:start], text[start:end], text[end:]

    def _windows(self, record: Record, prefix: str, body: str) -> list[Tokens]:
        """Cut a text into windows of ``max_length`` that together hold each of its ids once."""
        tokenizer = self._need_tokenizer(record)
        text = prefix + body
        coded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False
        )
        border = len(prefix)
        ids = list(coded["input_ids"])
        scored = [
            left >= border or (right > border and not text[left:border].strip())
            for left, right in coded["offset_mapping"]
        ]
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
            scored.append(True)
        first = leading_bos(tokenizer)
        room = self.max_length - len(first)
        cuts = list(range(0, len(ids), room))
        if not first and len(ids) - cuts[-1] == 1 and len(cuts) > 1:
            cuts[-1] -= 1  # a single token could not be scored: it needs one before it
        windows = []
        for number, (left, right) in enumerate(zip(cuts, [*cuts[1:], len(ids)], strict=True)):
            window = (*first, *ids[left:right])
            marks = [*[False] * len(first), *scored[left:right]]
            marks[0] = False
            if any(marks):
                name = record.id if len(cuts) == 1 else f"{record.id}@{number}"
                last = right == len(ids) and tokenizer.eos_token_id is not None
                windows.append(Tokens(window, tuple(marks), name, record.place, closed=last))
        if not windows:
            raise WagleError(f"{record.place} has no scored token; is its text more than a prefix?")
        return windows

    def _need_tokenizer(self, record: Record) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise WagleError(f"{record.place} is a {record.kind} record, which needs a tokenizer")
        return self.tokenizer

    def stop_ids(self, generation_eos: int | Sequence[int] | None = None) -> list[int]:
        """The ids that end a generated answer: EOS, end of turn, and the generation config's."""
        assert self.tokenizer is not None
        probe = Record("qa", place="probe")
        made = self.answer(probe, "a", "b")
        closing = made.ids[-1:] if made.closed else ()
        more = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
        eos = self.tokenizer.eos_token_id
        return sorted({*closing, *more, *(() if eos is None else (eos,))})


def leading_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The BOS that the tokenizer puts before a text, or none: SmolLM2's would open a chat turn."""
    added = tokenizer("", add_special_tokens=True)["input_ids"]
    return tuple(i for i in added[:1] if i == tokenizer.bos_token_id)


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text that a model wrote: ids decoded without special tokens, whitespace unchanged."""
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def as_encoder(tokenizer: PreTrainedTokenizerBase | Encoder | None) -> Encoder:
    """An encoder unchanged; a tokenizer (or None) with the default template and length limit."""
    return tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
