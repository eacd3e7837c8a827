"""What ``tofu`` asks: a plan, and the requests of each record under it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wagle.data.records import Record
from wagle.data.templates import TEMPLATES
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Greedy, Likelihood, Request, likelihood
from wagle.evaluation.judges.classifiers import Judges
from wagle.system.errors import WagleError

WORLD = ("real_authors", "world_facts")
TOTAL = 200  # tokens of question and answer together, where new tokens are not limited
_FIELDS = {
    "paraphrased_prompt": "paraphrased_question",
    "paraphrased_answer": "paraphrased_answer",
    "perturbed_answers": "perturbed_answer",
}
_HEADER = "### Answer: "  # which the published code treats as the start of the answer


@dataclass(frozen=True)
class Variant:
    """How a tool asks and counts.

    Attributes:
        retain_rows: how many of the 400 to take from the start; None: all.
        max_new_tokens: the longest answer; None: 200 tokens together with the question.
        ratio: the kind of mean over the wrong answers.
        peer: OpenUnlearning: also its extraction strength, which is never below 1/n; its attacks
            ``loss`` and ``zlib``, which count the EOS; and its gradient norm, the mean over tensors.
        published: the published WAGLE code: paraphrased questions before the answers of the truth
            ratio, which is averaged as it is; no EOS; wrong options are not counted; its own scored
            positions.
    """

    retain_rows: int | None
    max_new_tokens: int | None
    ratio: str = "geometric"
    peer: bool = False
    published: bool = False


VARIANTS: dict[str, Variant] = {
    "official": Variant(300, 128),
    "paper": Variant(300, 128, ratio="arithmetic"),
    "open_unlearning": Variant(None, 200, peer=True),
    "published": Variant(None, None, ratio="arithmetic", published=True),
}


@dataclass(frozen=True)
class Plan:
    """Everything that determines what is asked and how it is counted, apart from the records.

    ``closer_look`` is the sentence encoder for the figures of that name; None: they are not made.
    """

    encoder: Encoder
    split: str
    form: Variant
    eos: bool
    max_new_tokens: int | None
    generate: bool
    sentence_encoder: str | None
    by_author: bool
    seed: int
    judges: Judges
    closer_look: str | None


@dataclass(frozen=True)
class Item:
    """One record's requests: for its answer, for the truth ratio, and for what is written.

    ``closed`` says whether the answer's last scored token is its EOS.
    """

    record: Record
    closed: bool
    answer: Likelihood
    right: Likelihood
    wrong: tuple[Likelihood, ...] = ()
    paraphrased: Likelihood | None = None
    whole: Likelihood | None = None
    greedy: Greedy | None = None
    reworded: Greedy | None = None

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        more = (self.paraphrased, self.whole, self.greedy, self.reworded)
        return [self.answer, self.right, *self.wrong, *(r for r in more if r is not None)]


def ask_all(plan: Plan, name: str, record: Record) -> Item:
    """The requests of a record; a record that lacks a needed field is an error."""
    world = name in WORLD
    for field in ("perturbed_answers",) if world else _FIELDS:
        if not getattr(record, field):
            raise WagleError(
                f"{record.place} has no {_FIELDS[field]}, which TOFU's figures need; take the files "
                "whose names end in _perturbed"
            )
    again = record.paraphrased_prompt or record.prompt
    asked = again if plan.form.published else record.prompt
    told = record.paraphrased_answer or record.answer
    tokens = answer_tokens(plan, record, record.prompt, record.answer)
    answer = likelihood(tokens)
    item = Item(
        record,
        tokens.closed,
        answer,
        answer if world else likelihood(answer_tokens(plan, record, asked, told)),
        tuple(likelihood(answer_tokens(plan, record, asked, w)) for w in record.perturbed_answers),
    )
    if not world:
        reworded = answer_tokens(plan, record, again, record.answer)
        item = replace(item, paraphrased=likelihood(reworded))
    if plan.form.published and not world:
        item = replace(item, whole=Likelihood(tokens.ids[:1], tokens.ids[1:], place=record.place))
    if not plan.generate:
        return item
    compared = plan.sentence_encoder is not None and not world
    return replace(
        item,
        greedy=_greedy(plan, record, record.prompt),
        reworded=_greedy(plan, record, again) if compared else None,
    )


def answer_tokens(plan: Plan, record: Record, prompt: str, answer: str) -> Tokens:
    """An answer to a question, with its EOS if the plan scores that."""
    tokens = plan.encoder.answer(record, prompt, answer)
    if tokens.closed and not plan.eos:
        tokens = replace(tokens, ids=tokens.ids[:-1], scored=tokens.scored[:-1], closed=False)
    if not plan.form.published:
        return tokens
    # It skips as many tokens as the question alone has, without its BOS, and scores the rest: with
    # the plain template, the answer's header too.
    assert plan.encoder.tokenizer is not None
    text = TEMPLATES[plan.encoder.template].question.format(prompt=prompt).removesuffix(_HEADER)
    start = max(1, len(plan.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]))
    return replace(tokens, scored=tuple(i >= start for i in range(len(tokens.ids))))


def _greedy(plan: Plan, record: Record, prompt: str) -> Greedy:
    context = plan.encoder.answer(record, prompt, record.answer).context
    limit = TOTAL - len(context) if plan.max_new_tokens is None else plan.max_new_tokens
    if limit < 1:
        raise WagleError(
            f"{record.place}: its question has {len(context)} tokens, which leaves none of {TOTAL} "
            "for the answer; set max_new_tokens"
        )
    return Greedy(context, limit, record.place)
