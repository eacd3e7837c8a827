"""The models that are asked: how they are asked, and which one a name stands for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from transformers import PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.comparable import check_comparable, data_entry, unlike
from wagle.evaluation.figures import CALLED, Measured, Task, joined
from wagle.evaluation.peers.reading import read_result
from wagle.evaluation.result import Evaluation
from wagle.evaluation.served.asker import Asker
from wagle.evaluation.served.engines import AUTO
from wagle.evaluation.served.opening import as_asker, check_named, open_asker, told_path
from wagle.model.loading import check_name, is_bundled, resolve_model
from wagle.model.structure import device_of, model_folder, precision
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError

logger = logging.getLogger(__name__)
_OF_MODEL = ("dtype", "vocabulary")  # what a result says only about its own model
Reference: TypeAlias = "PreTrainedModel | Asker | Evaluation | str | Path"


@dataclass(frozen=True)
class Way:
    """How models are asked.

    Attributes:
        encoder: makes tokens of records; its tokenizer says what ends an answer.
        precision: the precision of matrix products.
        batch_tokens: padded tokens per forward pass, or None.
        cache: a folder for answers, or None.
        engine: how a model's folder is opened, a name in ENGINES.
    """

    encoder: Encoder
    precision: str = "float32"
    batch_tokens: int | None = None
    cache: Path | None = None
    engine: str = AUTO

    def ask(self, model: PreTrainedModel | Asker, task: Task, mark: str | None = None) -> Measured:
        """What a task measures on a model; ``mark`` is the model's fingerprint, if known."""
        asker = as_asker(model, mark)
        if task.ask is not None and asker.live is None:
            raise WagleError("this benchmark queries a live model itself; evaluate a model folder")
        answers = asker.answer(
            task.requests,
            encoder=self.encoder,
            precision=self.precision,
            batch_tokens=self.batch_tokens,
            cache=self.cache,
        )
        found = task.measure(answers)
        if task.ask is None or asker.live is None:
            return found
        with precision(device_of(asker.live), self.precision):
            return joined(found, task.ask(asker.live))

    def open(
        self, named: str | Path, patch: str | Path | Sequence[str | Path] | None = None
    ) -> Asker:
        """What answers for a named model, with patches or without."""
        return open_asker(
            named, patch=patch, find=find_model, encoder=self.encoder, engine=self.engine
        )

    def other(
        self, named: Reference, task: Task, kind: dict[str, Any]
    ) -> tuple[Evaluation, dict[str, Any]]:
        """What a task measures on another model, and its ``entry_of``, for the result file."""
        assert not isinstance(named, Evaluation)
        asker = self.open(named) if isinstance(named, str | Path) else as_asker(named)
        kind = {**kind, **_told_of(asker)}
        found = self.ask(asker, task)
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
    if not isinstance(named, str | Path):
        return {"kind": "model", **_told_of(as_asker(named))}
    if check_named(named, find_model):  # a form of a model, whose mark is known once it is opened
        return {"kind": "model", "path": told_path(named, find_model)}
    path = find_model(named)
    bundled = isinstance(named, str) and is_bundled(named)
    entry = {"kind": "model", "path": str(named if bundled else path)}
    with contextlib.suppress(WagleError):  # it is known once the model is loaded
        entry["fingerprint"] = fingerprint(path)
    return entry


def _told_of(asker: Asker) -> dict[str, Any]:
    """What a result says of a model beside its own."""
    return {key: told for key, told in asker.entry.items() if key not in _OF_MODEL}


def known_result(
    role: str, named: Reference, task: Task, benchmark: str, way: Way
) -> tuple[Evaluation, dict[str, Any]] | None:
    """The result that a name stands for, and which one it is; None for a model, which must exist.

    Whether it is comparable is checked here, before any model is asked.
    """
    if not isinstance(named, Evaluation | str | Path):
        return None
    if isinstance(named, str):
        check_name(named)
    key = way.cache
    if isinstance(named, Evaluation):
        found, kind = named, {"kind": "result", **named.details.get("model", {})}
    elif check_named(named, find_model):
        return None
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
