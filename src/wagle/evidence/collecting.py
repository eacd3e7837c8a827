"""From a finished run to the files of a pack: everything that a stranger needs, and no record."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wagle.evidence.commitment import (
    FILE,
    SECRET,
    commit_recipe,
    digest_of,
    read_commitment,
    read_secret,
    recipe_digest,
    write_commitment,
)
from wagle.evidence.merkle import root_of
from wagle.evidence.pack import MANIFEST, PUBLIC, SIGNATURE, manifest_of, write_pack
from wagle.evidence.protocol import Protocol
from wagle.evidence.reducing import reduced_recipe, reduced_result, shortened
from wagle.evidence.signing import public_text, read_key, sign
from wagle.evidence.wording import NOT_CLAIMED, claim_page, limits_page, script
from wagle.recipe.reading import load_recipe
from wagle.report.disclosure import Shortener
from wagle.run.ledger import Request, ledger_json, read_ledger
from wagle.run.opening import Run
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json

BEFORE, AFTER = "before the model was unlearned", "after the fact: it binds nobody"
_RESULTS = ("evaluation", "attacks", "deploy", "controls/*/evaluation", "controls/*/attacks")
_ASKING = re.compile(r".*\.(json|jinja|txt|model|py)$")  # files beside the weights


def collect_evidence(
    folder: str | Path,
    out: str | Path,
    *,
    key: str | Path,
    commitment: str | Path | None = None,
    secret: str | Path | None = None,
) -> dict[str, Any]:
    """Write the pack of a finished run.

    Args:
        folder: the run folder.
        out: the pack: a folder, or a file that ends in ``.zip``.
        key: the private key that signs it.
        commitment: the commitment; None: the run's own, or one that is made now.
        secret: its secret key; None: the file beside it, or in the run's private folder.

    Returns:
        The claim.

    Raises:
        WagleError: the run is not finished or was purged; the commitment is not for this run; the
            key is missing.
    """
    path = Path(folder)
    requests = read_ledger(path)
    run = Run(path, load_recipe(path / "recipe.yaml"))
    if "purged" in run.state:
        raise WagleError(f"{folder} was purged: the forget set can no longer be committed to")
    signer = read_key(key)
    found, when = _commitment(run, requests[-1], commitment, secret)
    claim = _claim(run, requests[-1], found, when)
    files = _files(run, requests, claim, found)
    files[PUBLIC] = public_text(signer).encode()
    manifest = manifest_of(files)
    files[MANIFEST] = _json(manifest)
    files[SIGNATURE] = _json(sign(manifest["root"], signer))
    write_pack(files, Path(out))
    return claim


def _commitment(
    run: Run, request: Request, given: str | Path | None, secret: str | Path | None
) -> tuple[dict[str, Any], str]:
    """The run's commitment, checked against the run, and whether it came before."""
    path = Path(given) if given else run.folder / FILE
    beside, own = path.with_name(SECRET), run.private / SECRET
    keys = Path(secret) if secret else beside if beside.is_file() else own
    if not given and not path.is_file():
        made = commit_recipe(run.recipe, run.folder)
        write_commitment(made, path, keys)
        return made.commitment, AFTER
    found = read_commitment(path)
    forget = run.inputs.need("forget")
    if root_of(forget, read_secret(keys)) != found["forget"]["root"]:
        raise WagleError(f"{path} was made for another forget set, or {keys} is not its secret key")
    if found["recipe"] not in (None, recipe_digest(reduced_recipe(run.recipe))):
        raise WagleError(
            f"{path} was made for another recipe: a setting of {run.folder} has changed since"
        )
    base = found["base"]
    if base["role"] == "base" and base["fingerprint"] != request.base:
        raise WagleError(
            f"{path} was made for the model {base['fingerprint'][:6]}, but {run.folder} started "
            f"from {request.base[:6]}"
        )
    return found, BEFORE if _moment(found["made"]) <= _unlearned(run, request) else AFTER


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _unlearned(run: Run, request: Request) -> datetime:
    """When the unlearned model was written, or at the latest when the run was finished."""
    times = [_moment(request.when)]
    for file in (run.folder / "model").glob("*.safetensors"):
        times.append(datetime.fromtimestamp(file.stat().st_mtime, timezone.utc))
    return min(times)


def _claim(run: Run, request: Request, commitment: dict[str, Any], when: str) -> dict[str, Any]:
    """``claim.json``: what the maker says, in one place."""
    stages = run.state["stages"]
    reference = run.evaluation("reference")
    patch = run.folder / "patch.safetensors"
    return {
        "schema": "wagle-claim/1",
        "name": request.name,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wagle": version("wagle"),
        "verdict": request.verdict,
        "reasons": list(stages["after"]["reasons"]),
        "models": {
            "base": request.base,
            "result": request.result,
            "reference": None if reference is None else reference.details["model"]["fingerprint"],
            "files": other_files(run.folder / "model"),
        },
        "forget": {key: commitment["forget"][key] for key in ("n", "root")},
        "patch": {"sha256": _digest(patch.read_bytes())} if patch.is_file() else None,
        "mask": request.mask,
        "commitment": {"digest": digest_of(commitment), "made": commitment["made"], "when": when},
        "not_claimed": list(NOT_CLAIMED),
    }


def other_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a model folder that decide how it is asked: all but its weights."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and _ASKING.match(p.name))
    return {
        name: _digest((folder / name).read_bytes())
        for name in names
        if not name.endswith(".index.json") and not name.startswith(".")
    }


def _files(
    run: Run, requests: list[Request], claim: dict[str, Any], commitment: dict[str, Any]
) -> dict[str, bytes]:
    """The files of a pack, before manifest and signature."""
    shorten, protocol = Shortener(run.recipe), Protocol.from_json(commitment["protocol"])
    machine = read_json(run.folder / "environment.json")
    files = {
        "claim.json": _json(claim),
        "CLAIM.md": claim_page(claim).encode(),
        "LIMITS.md": limits_page(protocol.tolerance, protocol.odd_ones).encode(),
        "commitment.json": _json(commitment),
        "environment.json": _json(shortened({**machine, "argv": None}, shorten)),
        "recipe.yaml": reduced_recipe(run.recipe).encode(),
        "ledger.json": _json(_requests(requests, shorten)),
        "reproduce.sh": script(machine, claim["models"]).encode(),
    }
    for folder in _RESULTS:
        for path in sorted(run.folder.glob(f"{folder}/*.json")):
            name = str(path.relative_to(run.folder))
            files[name] = _json(reduced_result(read_json(path), shorten))
    return files


def _requests(requests: list[Request], shorten: Shortener) -> list[dict[str, Any]]:
    """The ledger, with names in place of the paths of earlier runs."""
    found: list[dict[str, Any]] = shortened(ledger_json(requests), shorten)
    for entry in found:
        entry["after"] = entry["after"] and Path(entry["after"]).name
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
