"""Records -> tokens: one string, one tokeniser call, one exact border between prompt and answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from wagle.data.records import Record
from wagle.errors import WagleError, choose

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Template:
    """How a question becomes text: ``head`` + answer + ``tail``; the EOS closes what has no end.

    Attributes:
        question: text with ``{prompt}``; the answer follows at once.
        end: what follows the answer, before the tokenizer's EOS.
        between: what separates a few-shot answer from the next question.
    """

    question: str
    end: str = ""
    between: str = "\n\n"


TEMPLATES: dict[str, Template] = {
    "plain": Template("### Question: {prompt}\n### Answer: "),
    "question_answer": Template("Question: {prompt}\nAnswer: "),
    "llama2": Template("[INST] {prompt} [/INST]", between=" "),
    "llama2_published": Template("[INST] {prompt} [\\INST] ", between=" "),
    "none": Template("{prompt}\n\n"),
}


@dataclass(frozen=True)
class Tokens:
    """A tokenised record: ``ids`` and, for each, whether it is ``scored`` (never position 0).

    ``whole`` is False where the answer was cut at the length limit; ``closed`` is True where the
    last token is the EOS or end of turn that the encoder added; ``domain`` and ``weight`` are the
    record's.
    """

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    id: str = ""
    place: str = ""
    whole: bool = True
    closed: bool = False
    domain: int = 0
    weight: float | None = None

    @property
    def context(self) -> tuple[int, ...]:
        """What comes before the first scored token."""
        return self.ids[: self.scored.index(True)]

    @property
    def continuation(self) -> tuple[int, ...]:
        """The first scored token and all that follows."""
        return self.ids[self.scored.index(True) :]


class Encoder:
    """Turns records into tokens with one tokenizer, one template and one length limit.

    Args:
        tokenizer: a fast tokenizer (offsets are needed); None reads pre-tokenised records only.
        template: ``auto`` (the tokenizer's chat template, else ``plain``) or a name in TEMPLATES.
        system_prompt: the system turn of a chat template; None leaves the template's own.
        max_length: the longest record in tokens.
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
        self._told: set[str] = set()  # records whose cut was warned about
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
        """The template as it is stored with a run: its name and an example, filled in."""
        example = ""
        if self.tokenizer is not None:
            example = "".join(self._render("QUESTION", "ANSWER", ()))
        return {
            "name": self.template,
            "example": example,
            "system_prompt": self.system_prompt,
            "max_length": self.max_length,
        }

    def encode(self, records: Sequence[Record]) -> list[Tokens]:
        """Tokenise records; a text longer than the limit becomes several windows."""
        encoded: list[Tokens] = []
        cut = set()
        for record in records:
            if record.kind == "tokens":
                made = [self._ready(record)]
            elif record.kind == "text":
                made = self._windows(record)
            else:
                made = [self.answer(record, record.prompt, record.answer)]
                if not made[0].whole:
                    cut.add(record.id)
            encoded += [replace(t, domain=record.domain, weight=record.weight) for t in made]
        if cut - self._told:
            logger.warning(
                "%d of %d answers do not fit into max_length=%d and lost their end; "
                "raise model.max_length",
                len(cut),
                len(records),
                self.max_length,
            )
            self._told |= cut
        return encoded

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
        tokenizer = self._need_tokenizer(record)
        if not answer.strip():
            raise WagleError(f"{record.place} has an empty answer; remove it or fill it in")
        head, body, tail = self._render(prompt, answer, record.few_shot)
        start, end = len(head), len(head) + len(body)
        text = head + body + tail
        coded = tokenizer(
            text,
            add_special_tokens=self.template != "chat",
            return_offsets_mapping=True,
            truncation=False,
        )
        special = set(tokenizer.all_special_ids)
        ids: list[int] = []
        scored: list[bool] = []
        closed = False
        for token, (left, right) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
            outside = left == right and token in special  # added by the tokenizer, not in the text
            if outside and ids and any(scored):
                break  # the tokenizer's own EOS: added below, once
            if not outside and left >= end:
                if token in special or token in tokenizer.added_tokens_decoder:
                    ids.append(token)
                    scored.append(True)
                    closed = True
                    break  # the template's end of turn; what follows belongs to the next turn
                ids.append(token)
                scored.append(False)
                continue
            ids.append(token)
            # A token across the border is part of the answer if only blanks lie left of it.
            belongs = left >= start or (right > start and not text[left:start].strip())
            scored.append(bool(len(ids) > 1 and not outside and belongs))
        if not closed and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
            scored.append(True)
            closed = True
        if True not in scored[: self.max_length]:
            raise WagleError(
                f"the prompt of {record.place} leaves no room for an answer within "
                f"max_length={self.max_length} tokens; raise it or shorten the prompt"
            )
        limit = self.max_length
        whole = len(ids) <= limit
        return Tokens(
            tuple(ids[:limit]),
            tuple(scored[:limit]),
            record.id,
            record.place,
            whole=whole,
            closed=closed and whole,
        )

    def _render(
        self, prompt: str, answer: str, shots: Sequence[tuple[str, str]]
    ) -> tuple[str, str, str]:
        """The text before the answer, the answer, and the text after it."""
        if self.template != "chat":
            form = TEMPLATES[self.template]
            before = "".join(form.question.format(prompt=q) + a + form.between for q, a in shots)
            return before + form.question.format(prompt=prompt), answer, form.end
        turns = [{"role": "system", "content": self.system_prompt}] * (
            self.system_prompt is not None
        )
        for question, reply in shots:
            turns += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": reply},
            ]
        turns.append({"role": "user", "content": prompt})
        head = self._chat(turns, add_generation_prompt=True)
        full = self._chat([*turns, {"role": "assistant", "content": answer}])
        if not full.startswith(head):  # the template writes something else before a given answer
            head = full[: full.rfind(answer.strip())]
        after = full[len(head) :]
        body = answer if after.startswith(answer) else answer.strip()
        if not after.startswith(body):
            raise WagleError("the chat template changes the answer; choose a named template")
        return head, body, after[len(body) :]

    def _chat(self, turns: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        assert self.tokenizer is not None
        return str(
            self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )

    def _windows(self, record: Record) -> list[Tokens]:
        """Cut a text into windows of ``max_length``; together they hold every id of it once."""
        tokenizer = self._need_tokenizer(record)
        text = record.prompt + record.answer
        coded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False
        )
        border = len(record.prompt)
        ids = list(coded["input_ids"])
        scored = [
            left >= border or (right > border and not text[left:border].strip())
            for left, right in coded["offset_mapping"]
        ]
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
            scored.append(True)
        # A BOS only where the tokenizer adds one: SmolLM2's would open a chat turn.
        added = tokenizer("", add_special_tokens=True)["input_ids"]
        first = [i for i in added[:1] if i == tokenizer.bos_token_id]
        room = self.max_length - len(first)
        cuts = list(range(0, len(ids), room))
        if not first and len(ids) - cuts[-1] == 1 and len(cuts) > 1:
            cuts[-1] -= 1  # a lone last token could not be scored: it needs one before it
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
            raise WagleError(f"{record.place} is {record.kind}: give a tokenizer with it")
        return self.tokenizer

    def stop_ids(self, generation_eos: int | Sequence[int] | None = None) -> list[int]:
        """The ids that end a generated answer: EOS, end of turn, the generation config's own."""
        assert self.tokenizer is not None
        probe = Record("qa", place="probe")
        made = self.answer(probe, "a", "b")
        closing = made.ids[-1:] if made.closed else ()
        more = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
        eos = self.tokenizer.eos_token_id
        return sorted({*closing, *more, *(() if eos is None else (eos,))})


def as_encoder(tokenizer: PreTrainedTokenizerBase | Encoder | None) -> Encoder:
    """An encoder as it is; a tokenizer (or None) with the default template and length limit."""
    return tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
