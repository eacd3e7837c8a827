"""Commitments: what a maker binds itself to before a model is made to forget.

A commitment (``wagle-commitment/1``) holds no record and nothing that a guess could be tested with:
the keyed root over the forget set, the fingerprint of the model, the digest of the recipe, the
limits of the verdict and the probe protocol. The key is a file of its own, mode 0600.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from wagle.data.records import Record
from wagle.evaluation.verdict import COLLAPSED, TINY
from wagle.evidence.merkle import root_of
from wagle.evidence.protocol import Protocol, protocol_for
from wagle.evidence.reducing import reduced_recipe
from wagle.metrics.table import PROBES
from wagle.model.weights import fingerprint
from wagle.recipe.reading import load_recipe
from wagle.recipe.recipe import Recipe
from wagle.run.inputs import Inputs
from wagle.run.models import Models
from wagle.system.errors import Refused, WagleError
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json

SCHEMA = "wagle-commitment/1"
FILE = "commitment.json"
SECRET = "commitment.secret"
_KEYS = ("schema", "made", "wagle", "forget", "base", "recipe", "thresholds", "protocol")
_SELECTION = ("split", "rows", "take", "seed", "weights")
THRESHOLDS = {
    "interval": "95 %",
    "metrics": list(PROBES),
    "leak": "a metric of the forget set lies above the reference's interval",
    "next_to_nothing": TINY,
    "collapsed": COLLAPSED,
}


class Made(NamedTuple):
    """A commitment and its secret key."""

    commitment: dict[str, Any]
    key: bytes


def digest_of(commitment: dict[str, Any]) -> str:
    """SHA-256 of a commitment, whatever the layout of its file; 64 hex digits."""
    text = json.dumps(commitment, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_digest(text: str) -> str:
    """SHA-256 of a reduced recipe."""
    return hashlib.sha256(text.encode()).hexdigest()


def commit_recipe(recipe: Recipe, folder: Path, probes: int | None = None) -> Made:
    """Commit to what a recipe will forget.

    Args:
        recipe: the recipe, or that of a run.
        folder: the run folder, which need not exist: if the model that is to forget lies there,
            the commitment names it, else the model that the run starts from.
        probes: how many records an audit asks about; None: the default.
    """
    models = Models(folder, recipe)
    role = "base" if models.base == models.named or models.base.is_dir() else "start"
    model = models.base if role == "base" else models.named
    return _make(recipe, Inputs(recipe, models).need("forget"), role, model, probes, named=True)


def commit_model(model: str, forget: Sequence[str], probes: int | None = None) -> Made:
    """Commit to forgetting some records from one model.

    Args:
        model: the model folder, or ``demo``.
        forget: the sources of the records.
        probes: how many records an audit asks about; None: the default.
    """
    recipe = _asking(model, forget, {}, {})
    models = Models(Path(model), recipe)
    records = Inputs(recipe, models).need("forget")
    return _make(recipe, records, "base", models.named, probes, named=False)


def _make(
    recipe: Recipe,
    records: Sequence[Record],
    role: str,
    model: Path,
    probes: int | None,
    *,
    named: bool,
) -> Made:
    key, asked = secrets.token_bytes(32), recipe.evaluation
    count = len(records) if asked.records is None else min(len(records), asked.records)
    assert recipe.forget is not None
    how = recipe.forget.model_dump(mode="json")
    seed = recipe.seed if how["seed"] is None else how["seed"]
    selection = {**{name: how[name] for name in _SELECTION}, "seed": seed}
    return Made(
        {
            "schema": SCHEMA,
            "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "wagle": version("wagle"),
            "forget": {
                "n": len(records),
                "root": root_of(records, key),
                "selection": selection,
            },
            "base": {"role": role, "fingerprint": fingerprint(model)},
            "recipe": recipe_digest(reduced_recipe(recipe)) if named else None,
            "thresholds": THRESHOLDS,
            "protocol": protocol_for(count, asked.precision, probes).to_json(),
        },
        key,
    )


def write_commitment(made: Made, out: Path, secret: Path) -> None:
    """Write a commitment and its secret key, which is never overwritten.

    Raises:
        WagleError: one of the files exists.
    """
    for path in (out, secret):
        if path.exists():
            raise WagleError(f"{path} exists; a commitment is never replaced: name another file")
    write_text(secret, made.key.hex() + "\n", private=True)
    write_json(out, made.commitment)


def read_secret(path: Path) -> bytes:
    """The secret key of a commitment.

    Raises:
        WagleError: the file is not there or holds no such key.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError:
        raise WagleError(
            f"{path} does not exist; it is the commitment's secret key, which its maker wrote "
            "beside it and hands over together with the forget set: name it with --secret"
        ) from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise WagleError(f"{path} is not the secret key of a commitment: 64 hex digits")
    return key


def read_commitment(path: Path) -> dict[str, Any]:
    """Read a commitment file.

    Raises:
        WagleError: there is no such file.
        Refused: it has other fields than those of a commitment.
    """
    return checked_commitment(read_json(path))


def checked_commitment(data: Any) -> dict[str, Any]:
    """A commitment, if it has the fields of one and no others.

    Raises:
        Refused: it has not, or its probe protocol is not a fair one.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise Refused(f"{FILE} is not a commitment of the format {SCHEMA}")
    odd = sorted(set(data) ^ set(_KEYS))
    if odd:
        raise Refused(
            f"the commitment has {odd[0]!r} missing or added: nonce and probes are the auditor's"
        )
    Protocol.from_json(data["protocol"])
    try:
        forget, base = data["forget"], data["base"]
        sound = len(forget["root"]) == 64 and forget["n"] > 0 and len(base["fingerprint"]) == 64
        sound = sound and set(forget["selection"]) == set(_SELECTION)
    except (KeyError, TypeError):
        sound = False
    if not sound or data["thresholds"] != THRESHOLDS:
        raise Refused("the commitment's forget set, model or thresholds are not in their format")
    return data


def _asking(
    model: str, forget: Sequence[str], selection: Mapping[str, Any], settings: Mapping[str, Any]
) -> Recipe:
    """A recipe that only asks a model about some records."""
    source = forget[0] if len(forget) == 1 else list(forget)
    told = {key: settings[key] for key in ("template", "system_prompt", "max_length") if settings}
    asked = {key: settings[key] for key in ("precision", "batch_tokens", "records") if settings}
    return load_recipe(
        {
            "name": "evidence",
            "seed": settings.get("seed", 0),
            "model": {"path": model, **told},
            "forget": {"source": source, **selection},
            "evaluation": asked,
        }
    )


def inputs_for(
    model: Path, forget: Sequence[str], commitment: Mapping[str, Any], settings: Mapping[str, Any]
) -> Inputs:
    """The forget set that an auditor was given, and the encoder of the model to ask.

    Args:
        model: the model folder.
        forget: the sources of the records, in the order of the recipe.
        commitment: says which of them are the forget set.
        settings: how the model is asked: ``seed``, ``template``, ``system_prompt``, ``max_length``,
            ``precision``, ``batch_tokens``, ``records``.
    """
    recipe = _asking(str(model), forget, commitment["forget"]["selection"], settings)
    return Inputs(recipe, Models(model, recipe))
