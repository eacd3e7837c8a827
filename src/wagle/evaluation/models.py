"""The models that are asked: how they are asked, and which one a name stands for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn
from transformers import PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.comparable import check_comparable, data_entry, unlike
from wagle.evaluation.figures import CALLED, Measured, Task, joined
from wagle.evaluation.peers.reading import read_result
from wagle.evaluation.result import Evaluation
from wagle.model.loading import check_name, is_bundled, load_model, resolve_model
from wagle.model.structure import device_of, model_folder, precision
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)
Reference: TypeAlias = "PreTrainedModel | Evaluation | str | Path"


@dataclass(frozen=True)
class Way:
    """How models are asked.

    Attributes:
        encoder: makes tokens of records; its tokenizer says what ends an answer.
        precision: the precision of matrix products.
        batch_tokens: padded tokens per forward pass, or None.
        cache: a folder for answers, or None.
    """

    encoder: Encoder
    precision: str = "float32"
    batch_tokens: int | None = None
    cache: Path | None = None

    def ask(self, model: PreTrainedModel, task: Task, mark: str | None = None) -> Measured:
        """What a task measures on a model; ``mark`` is the model's fingerprint, if known."""
        ends = model.generation_config.eos_token_id if model.generation_config else None
        stop_ids = self.encoder.stop_ids(ends) if self.encoder.tokenizer is not None else [0]
        cache = None
        if self.cache is not None:
            mark = mark or fingerprint(model)
            cache = AnswerCache(self.cache, mark, str(model.dtype), self.precision, stop_ids)
        answers = answer_requests(
            model,
            task.requests,
            stop_ids=stop_ids,
            batch_tokens=self.batch_tokens,
            dtype=self.precision,
            cache=cache,
        )
        found = task.measure(answers)
        if task.ask is None:
            return found
        with precision(device_of(model), self.precision):
            return joined(found, task.ask(model))

    def other(
        self, named: Reference, task: Task, kind: dict[str, Any]
    ) -> tuple[Evaluation, dict[str, Any]]:
        """What a task measures on another model, and its ``entry_of``, for the result file."""
        assert not isinstance(named, Evaluation)
        live = named if isinstance(named, nn.Module) else load_model(find_model(named))
        kind = {**kind, "fingerprint": kind.get("fingerprint") or fingerprint(live)}
        found = self.ask(live, task, kind["fingerprint"])
        return Evaluation(found.figures, found.texts, found.summary), kind


def find_model(named: str | Path) -> Path:
    """The model folder that a name stands for: itself, a run folder's model, or ``bundled:demo``."""
    path = Path(named)
    if isinstance(named, str):
        check_name(named)
    if (path / "recipe.yaml").is_file():
        return model_folder(path / ("model" if (path / "model").is_dir() else "base"))
    return model_folder(path) if isinstance(named, Path) else resolve_model(named)


def entry_of(named: Reference) -> dict[str, Any]:
    """Which model a name stands for, for the result file; a folder is read for its fingerprint."""
    assert not isinstance(named, Evaluation)
    if isinstance(named, nn.Module):
        return {"kind": "model", "fingerprint": fingerprint(named)}
    path = find_model(named)
    bundled = isinstance(named, str) and is_bundled(named)
    entry = {"kind": "model", "path": str(named if bundled else path)}
    with contextlib.suppress(WagleError):  # it is known once the model is loaded
        entry["fingerprint"] = fingerprint(path)
    return entry


def known_result(
    role: str, named: Reference, task: Task, benchmark: str, way: Way
) -> tuple[Evaluation, dict[str, Any]] | None:
    """The result that a name stands for, and which one it is; None for a model, which must exist.

    Whether it is comparable is checked here, before any model is asked.
    """
    if isinstance(named, nn.Module):
        return None
    if isinstance(named, str):
        check_name(named)
    key = way.cache
    if isinstance(named, Evaluation):
        found, kind = named, {"kind": "result", **named.details.get("model", {})}
    elif Path(named).is_file():
        found = read_result(named, corpus=task.data.get("corpus"))
        said = found.details.get("model", {}).get("kind", "result")
        mark = found.details.get("model", {}).get("fingerprint")
        kind = {"kind": said, "path": str(named), **({} if mark is None else {"fingerprint": mark})}
        key = _answers_of(Path(named)) or key
    else:
        find_model(named)
        return None
    called, own = CALLED[role], data_entry(task, key)
    check_comparable(benchmark, own, found.details, called)
    told = found.details.get("data") or {}
    if not isinstance(named, Evaluation) and told.get("sets") and told.get("salt") != own["salt"]:
        logger.warning(
            "cannot tell whether %s was asked about the same records, only how many there were: "
            "its answers are in another cache; evaluate both with one cache",
            called,
        )
    if (why := unlike(benchmark, own, way.precision, found.details)) is not None:
        logger.warning("%s %s", called, why)
    if task.fits is not None:
        task.fits(found.measured(), role)
    return found, kind


def _answers_of(file: Path) -> Path | None:
    """The private folder whose salt keys the digests of a run's result file; else None."""
    answers = file.absolute().parent.parent / "private" / "answers"
    return answers if (answers / "salt").is_file() else None


def patch_names(patch: str | Path | Sequence[str | Path]) -> list[str]:
    """The names of patch files, in their order."""
    several = [patch] if isinstance(patch, str | Path) else patch
    return [Path(one).name for one in several]
