"""A model behind an address that speaks the protocol of OpenAI's completions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.requests import (
    ARGMAX,
    GRADIENTS,
    LIKELIHOODS,
    MOMENTS,
    SAMPLES,
    STATES,
    Answers,
    Greedy,
    Likelihood,
    Reply,
    Request,
)
from wagle.evaluation.served.asker import answer_each
from wagle.evaluation.served.client import Client, Refused
from wagle.evaluation.served.completions import (
    IDS,
    TEXT,
    Echo,
    echo_body,
    prompt_of,
    read_choice,
    read_echo,
    read_likelihood,
    read_text,
    text_body,
    text_of_ids,
)
from wagle.evaluation.served.forms import Form, short_name
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)

_NEUTRAL = (  # questions that say nothing about any record
    "What is the capital of France?",
    "At what temperature does water boil?",
    "Which number comes after four?",
    "What is the opposite of hot?",
)
_WORDS = 8  # tokens of each answer to them
_TELLING = 3  # different tokens that show where log-probabilities belong
_TIE = 0.05  # nats by which reduced precision may part equals
_UNDER_WAY = 4  # requests at a time
_STOPS = 4  # the most stop texts that the protocol allows


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address.

    Attributes:
        client: its server.
        model: its name there.
        tokenizer: the tokenizer of the records.
        way: how prompts are sent: IDS or TEXT.
        absent: what it cannot be asked for, and why.
        behaviour: a digest of its answers to neutral prompts.
    """

    client: Client
    model: str
    tokenizer: PreTrainedTokenizerBase
    way: str
    absent: dict[str, str]
    behaviour: str

    @property
    def name(self) -> str:
        """Its address and name."""
        return f"{self.client.address}#{self.model}"

    @property
    def mark(self) -> str:
        """A digest of address, name and behaviour; no fingerprint of weights, which are unseen."""
        told = "\0".join((self.client.address, self.model, self.behaviour))
        return "endpoint:" + hashlib.sha256(told.encode()).hexdigest()

    @property
    def live(self) -> PreTrainedModel | None:
        """None: it runs elsewhere."""
        return None

    @property
    def entry(self) -> dict[str, Any]:
        """Which model it is, for the result file."""
        return {
            "fingerprint": self.mark,
            "fingerprint_of": "address, name and behaviour, not weights",
            "behaviour": self.behaviour,
            "dtype": None,
            "vocabulary": len(self.tokenizer),
            "form": "endpoint",
            "path": self.name,
            "prompts": self.way,
            "absent": dict(self.absent),
        }

    def answer(
        self,
        requests: Iterable[Request],
        *,
        encoder: Encoder,
        precision: str = "float32",
        batch_tokens: int | None = None,
        cache: Path | None = None,
    ) -> Answers:
        """Answer every distinct request once; see ``Asker``. The server computes as it pleases."""
        del precision, batch_tokens
        stop_ids = encoder.stop_ids()
        kept = None if cache is None else AnswerCache(cache, self.mark, self.way, "", stop_ids)
        kinds = (Greedy,) if LIKELIHOODS in self.absent else (Greedy, Likelihood)
        asked = [request for request in dict.fromkeys(requests) if isinstance(request, kinds)]
        ends = [text_of_ids(self.tokenizer, [i]) for i in stop_ids][:_STOPS]

        def answer_one(request: Request) -> Reply:
            if isinstance(request, Likelihood):
                return self._likelihood(request)
            assert isinstance(request, Greedy)
            choice = self.write(request.context, request.max_new_tokens, ends)
            return read_text(choice, self.tokenizer, stop_ids, request.max_new_tokens)

        found = answer_each(asked, answer_one, kept, workers=_UNDER_WAY)
        return Answers(found, self.absent)

    def _likelihood(self, request: Likelihood) -> Reply:
        echo = self.echo((*request.context, *request.continuation), request.place)
        if echo is None:
            raise WagleError(f"{self.name} stopped giving the log-probabilities of prompts")
        scored = request.scored or (True,) * len(request.continuation)
        return read_likelihood(echo, len(request.context), scored, self.name, request.place)

    def echo(self, ids: Sequence[int], place: str = "") -> Echo | None:
        """What the server says about the tokens of a prompt."""
        choice = self._complete(echo_body(prompt_of(self.tokenizer, ids, self.way)))
        return read_echo(choice, ids, self.tokenizer, place)

    def write(self, ids: Sequence[int], count: int, stop: Sequence[str] = ()) -> dict[str, Any]:
        """What the server writes after a prompt, at most ``count`` tokens, greedily."""
        return self._complete(text_body(prompt_of(self.tokenizer, ids, self.way), count, stop))

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.client.post("/completions", {"model": self.model, **body})
        return read_choice(reply, self.name)


def open_endpoint(form: Form, encoder: Encoder | None, client: Client | None = None) -> Endpoint:
    """Find out what a server can be asked for, with neutral questions alone.

    Args:
        form: its address and the model's name there.
        encoder: of the records, with the tokenizer of the served model.
        client: its server; None: one at the form's address.

    Raises:
        WagleError: it cannot be reached, has no such model, takes no completions, or its tokens are
            not those of the tokenizer.
    """
    if encoder is None or encoder.tokenizer is None:
        raise WagleError(f"{short_name(form)} needs the tokenizer of the served model")
    client = client or Client(form.base)
    model = find_served(form, client)
    if not client.at_home:
        logger.warning("the questions and answers of all records are sent to %s", form.base)
    asked = [Record("qa", prompt=text, answer="a", place="a neutral question") for text in _NEUTRAL]
    samples = [tokens.last_context for tokens in encoder.encode(asked)]
    absent = {
        why: f"{form.base}#{model} gives no {why}" for why in (MOMENTS, SAMPLES, STATES, GRADIENTS)
    }
    first = Endpoint(client, model, encoder.tokenizer, IDS, absent, "")
    way, unsaid = _probe(first, samples)
    asker = replace(first, way=way, absent={**absent, **unsaid})
    return replace(asker, behaviour=_behaviour(asker, samples))


def find_served(form: Form, client: Client | None = None) -> str:
    """The model's name at a server that can be reached.

    Raises:
        WagleError: the server cannot be reached, or has no such model, or several and none is
            named.
    """
    client = client or Client(form.base)
    try:
        listed = client.get("/models")
        names = [str(one["id"]) for one in listed["data"]]
    except (Refused, KeyError, TypeError):
        if form.model:
            return form.model  # a server need not list its models
        raise WagleError(f"{form.base} does not list its models; write {form.base}#MODEL") from None
    if form.model:
        if names and form.model not in names:
            raise WagleError(f"{form.base} has no model {form.model}; it has {', '.join(names)}")
        return form.model
    if len(names) != 1:
        raise WagleError(f"{form.base} has {len(names)} models; write {form.base}#MODEL")
    return names[0]


def _probe(asker: Endpoint, samples: Sequence[Sequence[int]]) -> tuple[str, dict[str, str]]:
    """How prompts are sent, and what the server does not say about their tokens."""
    ids, refused = samples[0], ""
    for way in (IDS, TEXT):
        trial = replace(asker, way=way)
        try:
            echo = trial.echo(ids)
        except Refused as error:
            _give_up(error)
            refused = str(error)
            try:
                trial.write(ids, 1)
            except Refused:
                continue  # it does not take such a prompt at all
            return way, _unsaid(asker, refused)
        if echo is None:
            return way, _unsaid(asker, "it ignores echo")
        missed = [found for one in samples if (found := _misses(trial, one)) is not None]
        if 2 * sum(missed) > len(missed):
            return way, _unsaid(asker, "those that it echoes belong to other tokens")
        if None in [best for best, log in zip(echo.best, echo.logs, strict=True) if log]:
            return way, {ARGMAX: f"{asker.name} does not say which tokens are likeliest"}
        return way, {}
    raise WagleError(f"{asker.name} takes no completions: {refused}")


def _misses(asker: Endpoint, ids: Sequence[int]) -> bool | None:
    """Whether what a server echoes belongs to other tokens than those beside it; None: unknown.

    What it wrote itself, greedily, must be what it finds likeliest there. Some servers are off by
    one.
    """
    text = asker.write(ids, _WORDS)["text"]
    said = asker.tokenizer(text, add_special_tokens=False)["input_ids"][:_WORDS]
    if len(set(said)) < _TELLING or "\ufffd" in text:
        return None  # repeats hide a shift; broken characters are not the tokens that it wrote
    try:
        echo = asker.echo((*ids, *said))
    except WagleError:  # as text, what it wrote may run into the question
        return None
    if echo is None:
        return None
    own = list(zip(echo.logs, echo.best, strict=True))[len(ids) :]
    missed = [log for log, best in own if log is None or (best is not None and log < best - _TIE)]
    return len(missed) > len(said) // 4


def _give_up(error: Refused) -> None:
    if error.status in (401, 403):
        raise WagleError(f"{error}; set the environment variable WAGLE_API_KEY") from None
    if error.status == 404:
        raise WagleError(f"{error}; wagle needs completions, not only chat") from None


def _unsaid(asker: Endpoint, why: str) -> dict[str, str]:
    told = f"{asker.name} gives no log-probabilities of a prompt"
    logger.warning("%s (%s): only what it writes is measured", told, why)
    return {LIKELIHOODS: told, ARGMAX: told}


def _behaviour(asker: Endpoint, samples: Sequence[Sequence[int]]) -> str:
    """SHA-256 of what a model answers to neutral questions, and how likely it finds them."""
    told: list[Any] = []
    for ids in samples:
        told.append(asker.write(ids, _WORDS)["text"])
        echo = None if LIKELIHOODS in asker.absent else asker.echo(ids)
        told.append([round(log, 2) + 0.0 for log in (echo.logs if echo else []) if log])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
