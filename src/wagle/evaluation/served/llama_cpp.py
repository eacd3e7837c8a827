"""A GGUF file run by llama.cpp, through llama-cpp-python."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from wagle.data.draws import uniform
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.generation import draw
from wagle.evaluation.asking.likelihoods import moments
from wagle.evaluation.asking.requests import (
    GRADIENTS,
    STATES,
    Answers,
    Greedy,
    Likelihood,
    LikelihoodAnswer,
    Reply,
    Request,
    Sample,
    TextAnswer,
)
from wagle.evaluation.served.asker import answer_each
from wagle.model.quantization.kinds import quiet
from wagle.system.errors import WagleError


def has_llama_cpp() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


@dataclass(frozen=True)
class LlamaCpp:
    """A GGUF file that llama.cpp runs, with its own arithmetic.

    Attributes:
        path: the file.
        digest: its SHA-256.
        about: what else the result file says about it.
    """

    path: Path
    digest: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """SHA-256 of the file, marked as run by llama.cpp: its arithmetic is its own."""
        return f"llama.cpp:{self.digest}"

    @property
    def live(self) -> PreTrainedModel | None:
        """None: llama.cpp runs it."""
        return None

    @property
    def entry(self) -> dict[str, Any]:
        """Which model it is, for the result file."""
        with _opened(self.path, 0) as model:
            size = model.n_vocab()
        return {
            "fingerprint": self.digest,
            "fingerprint_of": "the file",
            "dtype": None,
            "vocabulary": size,
            "form": "gguf",
            "by": f"llama-cpp-python {importlib.import_module('llama_cpp').__version__}",
            **self.about,
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
        """Answer every distinct request once; see ``Asker``. llama.cpp computes in its own way."""
        del precision, batch_tokens
        stop_ids = encoder.stop_ids()
        kept = None if cache is None else AnswerCache(cache, self.mark, "gguf", "", stop_ids)
        kinds = (Likelihood, Greedy, Sample)
        asked = [request for request in dict.fromkeys(requests) if isinstance(request, kinds)]
        asked.sort(key=_ids)  # what begins alike is asked in a row, and runs once
        absent = {why: f"llama.cpp gives no {why}" for why in (STATES, GRADIENTS)}
        longest = max(map(_length, asked), default=1)
        with _opened(self.path, longest) as model:
            known = set(range(model.n_vocab()))
            if not known.issuperset(token for request in asked for token in _ids(request)):
                raise WagleError(
                    f"{self.path.name} has {len(known)} tokens, the tokenizer has more; name its "
                    "own with --tokenizer"
                )
            told = _Told(model, frozenset(stop_ids))
            found = answer_each(asked, told.answer, kept)
        return Answers(found, absent)


class _opened:
    """A model that llama.cpp has loaded, for as long as it is needed.

    Args:
        path: the file.
        length: the most tokens of a request; 0 opens the vocabulary alone.
    """

    def __init__(self, path: Path, length: int) -> None:
        self.path, self.length = path, length

    def __enter__(self) -> Any:
        library: Any = importlib.import_module("llama_cpp")
        only = self.length == 0
        more = {} if only else {"n_ctx": self.length + 8, "logits_all": True}
        try:
            with quiet():
                self.model = library.Llama(
                    str(self.path),
                    vocab_only=only,
                    n_threads=torch.get_num_threads(),
                    n_threads_batch=torch.get_num_threads(),
                    verbose=False,
                    **more,
                )
        except (ValueError, RuntimeError) as error:
            raise WagleError(f"llama.cpp cannot load {self.path.name}: {error}") from error
        told = self.model.metadata
        most = int(told.get(f"{told.get('general.architecture')}.context_length", self.length))
        if self.length > most:
            raise WagleError(
                f"the longest question with its answer needs {self.length} tokens, but "
                f"{self.path.name} has {most} positions"
            )
        return self.model

    def __exit__(self, *_: object) -> None:
        with quiet():
            self.model.close()


class _Told:
    """Answers one request after the other; what two have in common at the start runs once."""

    def __init__(self, model: Any, stop_ids: frozenset[int]) -> None:
        self.model, self.stop_ids = model, stop_ids
        self.seen: list[int] = []

    def answer(self, request: Request) -> Reply:
        """The answer to a likelihood request, or to one for text."""
        if isinstance(request, Likelihood):
            return self._likelihood(request)
        assert isinstance(request, Greedy | Sample)
        return self._text(request)

    def _logits(self, ids: Sequence[int], rows: int) -> Tensor:
        """(rows, V) float32: the logits after each of the last ``rows`` of ``ids``."""
        common = 0
        most = min(len(self.seen), len(ids) - 1)
        while common < most and self.seen[common] == ids[common]:
            common += 1
        self.model.n_tokens = common  # the rest of what it has seen is dropped by ``eval``
        with quiet():
            self.model.eval(list(ids[common:]))
        self.seen = list(ids)
        found = np.asarray(self.model.scores[len(ids) - rows : len(ids)], dtype=np.float32)
        return torch.from_numpy(found.copy())

    def _likelihood(self, request: Likelihood) -> LikelihoodAnswer:
        count = len(request.continuation)
        ids = (*request.context, *request.continuation)
        logits = self._logits(ids[:-1], count)
        target = torch.tensor(request.continuation)
        nll = -logits.log_softmax(-1)[torch.arange(count), target].double()
        kept = torch.tensor(request.scored or (True,) * count)
        if not nll[kept].isfinite().all():
            raise WagleError(
                f"llama.cpp gives log-probabilities that are not finite for {request.place}"
            )
        spread = moments(logits)[kept] if request.moments else None
        return LikelihoodAnswer(nll[kept], (logits.argmax(-1) == target)[kept], spread)

    def _text(self, request: Greedy | Sample) -> TextAnswer:
        said: list[int] = []
        while len(said) < request.max_new_tokens:
            logits = self._logits((*request.context, *said), 1)[0]
            if isinstance(request, Sample):
                number = uniform("sample", request.key, len(said))
                token = draw(logits, request.temperature, request.top_p, number)
            else:
                token = int(logits.argmax())
            if token in self.stop_ids:
                return TextAnswer(tuple(said), finished=True)
            said.append(token)
        return TextAnswer(tuple(said), finished=False)


def _ids(request: Likelihood | Greedy | Sample) -> tuple[int, ...]:
    return (*request.context, *getattr(request, "continuation", ()))


def _length(request: Likelihood | Greedy | Sample) -> int:
    return len(_ids(request)) + getattr(request, "max_new_tokens", 0)
