"""What a pack shows by itself: who signed it, and that its parts agree with one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import DAMAGED, INCONCLUSIVE, LEAKS, NO_LEAK, judge
from wagle.evidence.collecting import other_files
from wagle.evidence.commitment import checked_commitment, digest_of, recipe_digest
from wagle.evidence.pack import PUBLIC, SIGNATURE, Files, check_manifest, json_of
from wagle.evidence.protocol import FIGURES, Protocol
from wagle.evidence.signing import key_name, signed_root
from wagle.model.weights import fingerprint
from wagle.recipe.syntax import parse_yaml
from wagle.system.errors import Refused, WagleError
from wagle.system.files.reading import decoded

_ROLES = ("before", "after", "reference")
_MODEL = ("template", "system_prompt", "max_length", "attention")
_ASKED = ("precision", "batch_tokens", "records")
_ROUNDING = 1e-6  # between a mean and the figure that it should be


@dataclass(frozen=True)
class Told:
    """What a pack tells, checked for contradictions.

    Attributes:
        claim: ``claim.json``.
        commitment: ``commitment.json``.
        protocol: its probe protocol.
        settings: how the models were asked.
        results: the evaluations on the recipe's own sets, by role.
        version: of the definitions of the figures.
    """

    claim: Mapping[str, Any]
    commitment: dict[str, Any]
    protocol: Protocol
    settings: Mapping[str, Any]
    results: Mapping[str, Evaluation]
    version: int | None


def signed_by(files: Files, pinned: bytes | None) -> str:
    """Check signature and digests; says who signed.

    Raises:
        Refused: a file was changed, or the signature is not of this pack or not by this key.
    """
    root = check_manifest(files)
    try:
        name = key_name(files[PUBLIC])
    except WagleError as error:
        if "not installed" in str(error):
            raise
        raise Refused(f"{PUBLIC}: {error}") from None
    if pinned is not None and key_name(pinned) != name:
        raise Refused(
            f"the pack is signed by the key {name[:12]}, not by the one that you pinned "
            f"({key_name(pinned)[:12]})"
        )
    signed = signed_root(json_of(files, SIGNATURE), files[PUBLIC])
    if signed != root:
        raise Refused(
            f"the signature is of another pack: it signs {signed[:12]}, this one is {root[:12]}"
        )
    if pinned is None:
        return f"signed by the key {name[:12]}, which you did not pin: the signer is unknown"
    return f"signed by the key {name[:12]}, which you pinned"


def told_in(files: Files) -> Told:
    """Everything that a pack tells, if its parts agree.

    Raises:
        Refused: they do not.
    """
    claim, commitment = json_of(files, "claim.json"), json_of(files, "commitment.json")
    commitment = checked_commitment(commitment)
    if commitment["recipe"] not in (
        None,
        recipe_digest(decoded(files["recipe.yaml"], "recipe.yaml")),
    ):
        raise Refused("recipe.yaml is not the recipe of the commitment")
    try:
        results = {
            role: Evaluation.from_json(json_of(files, f"evaluation/{role}.json"))
            for role in _ROLES
            if f"evaluation/{role}.json" in files
        }
        _check_claim(claim, commitment, json_of(files, "ledger.json"), results)
        recipe = parse_yaml(decoded(files["recipe.yaml"], "recipe.yaml"), "recipe.yaml")
        settings, limits = _settings(recipe), recipe["evaluation"].get("limits")
        version = results["after"].details["data"]["settings"].get("version")
    except Refused:
        raise
    except WagleError as error:
        raise Refused(str(error)) from None
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Refused(f"a part of the pack lacks what it must hold ({error!r})") from None
    for role, result in results.items():
        _check_figures(role, result)
    _check_verdict(claim, results, limits)
    protocol = Protocol.from_json(commitment["protocol"])
    return Told(claim, commitment, protocol, settings, results, version)


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    model, asked = recipe["model"], recipe["evaluation"]
    found = {**{key: model[key] for key in _MODEL}, **{key: asked[key] for key in _ASKED}}
    return {**found, "seed": recipe["seed"]}


def _check_claim(
    claim: Any, commitment: dict[str, Any], ledger: Any, results: Mapping[str, Evaluation]
) -> None:
    """Refuse a claim that ledger, commitment and evaluations do not bear out."""
    last, models = ledger[-1], claim["models"]
    marks = {role: one.details["model"]["fingerprint"] for role, one in results.items()}
    agree = {
        "the base of ledger.json": (last["base"], models["base"]),
        "the result of ledger.json": (last["result"], models["result"]),
        "the verdict of ledger.json": (last["verdict"], claim["verdict"]),
        "the model of evaluation/before.json": (marks["before"], models["base"]),
        "the model of evaluation/after.json": (marks["after"], models["result"]),
        "the model of evaluation/reference.json": (marks.get("reference"), models["reference"]),
        "the commitment": (digest_of(commitment), claim["commitment"]["digest"]),
        "the forget set of the commitment": (
            {key: commitment["forget"][key] for key in ("n", "root")},
            claim["forget"],
        ),
    }
    if commitment["base"]["role"] == "base":
        agree["the base of the commitment"] = (commitment["base"]["fingerprint"], models["base"])
    elif (results["after"].details.get("reference") or {}).get("kind") == "untaught":
        start = commitment["base"]["fingerprint"]
        agree["the model of the commitment"] = (start, models["reference"])
    for what, (one, other) in agree.items():
        if one != other:
            raise Refused(f"{what} is not the one of claim.json: one of the two was changed")


def _check_figures(role: str, result: Evaluation) -> None:
    """Refuse a figure that is not the mean of its records."""
    for metric in FIGURES:
        figure = result.figures.get("forget", {}).get(metric)
        if figure is None or figure.value is None or not figure.per_record:
            continue
        if abs(figure.value - fmean(figure.per_record.values())) > _ROUNDING:
            raise Refused(
                f"{metric} in evaluation/{role}.json is not the mean of its records: it was changed"
            )


def _check_verdict(
    claim: Mapping[str, Any],
    results: Mapping[str, Evaluation],
    limits: Mapping[str, float | None] | None,
) -> None:
    """Refuse a claim of no leak that the pack's own evaluations contradict."""
    if claim["verdict"] != NO_LEAK:
        return
    word = judge(results["after"], results["before"], results.get("reference"), limits).word
    if word in (LEAKS, DAMAGED, INCONCLUSIVE):
        raise Refused(f"the claim is {NO_LEAK!r}, but the evaluations of the pack say {word!r}")


def other_model(folder: Path, wanted: str | None, files: Mapping[str, Any] | None) -> str | None:
    """In what a model folder differs from what a pack tells; None: in nothing.

    Args:
        folder: the model folder.
        wanted: the fingerprint that the pack tells; None: it tells of no such model.
        files: what the pack tells of the model, to compare the files beside the weights too.
    """
    if wanted is None:
        return "the pack tells of no such model"
    mark = fingerprint(folder)
    if mark != wanted:
        return f"its weights are {mark[:12]}, in the pack they are {wanted[:12]}"
    told, own = (files or {}).get("files", {}), other_files(folder)
    for name, digest in told.items():
        if own.get(name) != digest:
            return f"its file {name} is not the one of the pack"
    added = sorted(set(own) - set(told)) if files is not None else []
    return f"its file {added[0]} is not in the pack" if added else None
