"""Retrain an adapter without some records: exact forgetting of what the base never knew."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from wagle.data.overlap import leave_out
from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, as_encoder
from wagle.model.adapters import adapter_settings
from wagle.model.loading import load_model, load_tokenizer, resolve_model
from wagle.model.weights import fingerprint
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.secrets import keyed_digest, private_folder, salt
from wagle.unlearning.lora import save_adapter, wrap
from wagle.unlearning.teaching import finetune
from wagle.unlearning.training.callback import OnStep
from wagle.unlearning.training.checkpoints import clear_checkpoints

logger = logging.getLogger(__name__)
SCHEMA = "wagle-retrained/1"
FILE = "retrained.json"


@dataclass(frozen=True)
class Retrained:
    """What ``retrained.json`` says: how an adapter came about, without text of records.

    Attributes:
        base: fingerprint of the base, 64 hex digits.
        records: ``n`` and keyed ``digest`` of what it was taught.
        forget: the same of what it was not to be taught.
        left_out: how many of the given records were left out.
        missing: how many records to forget were not among them anyway.
        training: the settings of its training.
        template: how records became text.
        seed: of initial values and order.
        steps: how many optimiser steps were taken.
        wagle: the version that trained it.
    """

    base: str
    records: dict[str, Any]
    forget: dict[str, Any]
    left_out: int
    missing: int
    training: dict[str, Any]
    template: dict[str, Any]
    seed: int
    steps: int
    wagle: str

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {"schema": SCHEMA, **asdict(self)}

    def line(self) -> str:
        """What was done, in a line."""
        return (
            f"trained on {self.records['n']:,} records in {self.steps:,} steps; {self.left_out:,} "
            "left out"
        )


def retrain_adapter(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None = None,
    *,
    adapter: str | Path,
    records: Source,
    forget: Source,
    out: str | Path,
    training: Training | None = None,
    attention: str = "auto",
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Retrained:
    """Train a new adapter with the configuration of another one, without some records.

    Records are matched by what they say, ignoring case, whitespace and punctuation. A killed
    training resumes: its checkpoints, and the key of the digests, are in ``OUT-private``.

    Args:
        base: the model folder that the adapter belongs to.
        tokenizer: a fast tokenizer or an ``Encoder``; None takes the base's own.
        adapter: the folder whose ``adapter_config.json`` the new adapter has.
        records: everything that the old one was taught.
        forget: what the new one must not be taught.
        out: the folder to make.
        training: how to train; None: the defaults. Dropout is on if the adapter's configuration has
            any.
        attention: as in ``load_model``.
        seed: of its initial values and of the order of the records.
        on_step: called with the figures of every step.

    Raises:
        WagleError: peft is missing, the adapter is not this base's, ``out`` exists, none of the
            records to forget is among the records, or nothing would be left.
    """
    home, folder = resolve_model(str(base)), Path(out)
    if folder.exists():
        raise WagleError(f"{out} exists already; choose another folder with --out, or delete it")
    settings: Any = adapter_settings(home, Path(adapter))
    settings.inference_mode = False
    given = read_records(records, name="records", seed=seed)
    gone = read_records(forget, name="forget", seed=seed)
    kept, missing = _rest(given, gone)
    encoder = as_encoder(load_tokenizer(home) if tokenizer is None else tokenizer)
    how = _with_dropout(training or Training(), settings)
    private = private_folder(folder.with_name(f"{folder.name}-private"))
    model = wrap(load_model(home, attention=attention), settings, seed)
    more: dict[str, Any] = {"checkpoint_folder": private, "on_step": on_step}
    found = finetune(model, encoder, kept, training=how, seed=seed, **more)
    key = salt(private)
    made = Retrained(
        base=fingerprint(home),
        records={"n": len(kept), "digest": keyed_digest(key, [r.id for r in kept])},
        forget={"n": len(gone), "digest": keyed_digest(key, [r.id for r in gone])},
        left_out=len(given) - len(kept),
        missing=missing,
        training=how.model_dump(mode="json"),
        template=encoder.describe(),
        seed=seed,
        steps=found.history[-1]["step"] if found.history else 0,
        wagle=version("wagle"),
    )
    save_adapter(model, folder, home)
    write_json(folder / FILE, made.to_json())
    clear_checkpoints(private)
    return made


def _with_dropout(training: Training, settings: Any) -> Training:
    """The training, with dropout on if the adapter has any and nothing else was asked for."""
    if getattr(settings, "lora_dropout", 0) and "dropout" not in training.model_fields_set:
        return training.model_copy(update={"dropout": True})
    return training


def _rest(given: Any, gone: Any) -> tuple[list[Any], int]:
    """What is left of some records, and how many of those to forget were not among them."""
    kept, missing = leave_out(given, gone)
    if len(missing) == len(gone):
        raise WagleError(
            f"none of the {len(gone)} records to forget is among the {len(given)} records; give "
            "--records as the adapter was taught them"
        )
    if not kept:
        raise WagleError("every record is to be forgotten, so no adapter is needed: use the base")
    if missing:
        logger.warning(
            "%d of %d records to forget are not among the records (%s first): if the adapter was "
            "taught them in other words, those words are still there",
            len(missing),
            len(gone),
            missing[0].place,
        )
    return kept, len(missing)
