"""The audit of a pack: signature, digests, commitment, fingerprints, and probes asked anew.

Checks come in an order in which each relies only on those before it; the first that fails ends the
audit with one line. Nothing of the pack is executed, and no probe is taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.evaluation.verdict import INCONCLUSIVE, NO_LEAK
from wagle.evidence.asking import (
    Compared,
    PerRecord,
    ask_records,
    compare,
    contradiction,
    largest_gap,
    told_by,
    way_to_ask,
)
from wagle.evidence.checking import Told, other_model, signed_by, told_in
from wagle.evidence.commitment import digest_of, inputs_for, read_commitment, read_secret
from wagle.evidence.merkle import root_of
from wagle.evidence.pack import read_pack
from wagle.evidence.protocol import check_nonce, draw_places
from wagle.evidence.signing import read_public
from wagle.run.inputs import Inputs
from wagle.system.errors import Refused, WagleError

if TYPE_CHECKING:
    from wagle.evaluation.models import Way

CONFIRMED, REFUSED, UNSURE = "confirmed", "refused", "inconclusive"
EXIT = {CONFIRMED: 0, REFUSED: 1, UNSURE: 3}


@dataclass
class Audit:
    """What an audit found.

    Attributes:
        outcome: ``confirmed``, ``refused`` or ``inconclusive``.
        reason: why, in one line.
        passed: what was checked and holds, a line each.
        compared: the figures over the probes.
        questions: the same for the auditor's own questions.
        drawn: the places of the records that were asked about.
        commitment: the digest of the commitment.
        nonce: the auditor's, or None.
    """

    outcome: str = UNSURE
    reason: str = ""
    passed: list[str] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    questions: list[Compared] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    commitment: str = ""
    nonce: str | None = None

    @property
    def code(self) -> int:
        """The exit code: 0 confirmed, 1 refused, 3 inconclusive."""
        return EXIT[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        plain = {**vars(self)}
        for name in ("compared", "questions"):
            plain[name] = [vars(one) for one in plain[name]]
        return {"schema": "wagle-audit/1", **plain}


@dataclass(frozen=True)
class Given:
    """What the auditor brings; all but the pack may be left out.

    Attributes:
        model: the model folder that is said to have forgotten.
        forget: the sources of the forget set, as the recipe orders them.
        secret: the commitment's secret key, handed over with the forget set.
        nonce: chosen by the auditor after the commitment.
        base: the model before unlearning.
        reference: the model that never learned the forget set.
        questions: a file of the auditor's own questions with their answers.
        public_key: the key that the pack should be signed by.
        commitment: the auditor's own copy of the commitment.
    """

    model: str | None = None
    forget: Sequence[str] = ()
    secret: str | None = None
    nonce: str | None = None
    base: str | None = None
    reference: str | None = None
    questions: str | None = None
    public_key: str | None = None
    commitment: str | None = None


def audit_pack(pack: str | Path, given: Given) -> Audit:
    """Check a pack against what the auditor has.

    Raises:
        WagleError: the auditor's own input is missing or wrong. What is wrong with the pack is in
            the result.
    """
    _check_given(given)
    audit = Audit(nonce=given.nonce)
    try:
        told = _read(pack, given, audit)
        if given.model is None:
            return _unsure(audit, "no model was given: only the pack itself was checked")
        _check_models(told, given, audit)
        if not given.forget:
            return _unsure(audit, "no forget set was given: the model was not asked anything")
        _ask(told, given, audit)
    except Refused as refusal:
        audit.outcome, audit.reason = REFUSED, str(refusal)
    return audit


def _check_given(given: Given) -> None:
    if given.forget and (given.model is None or given.nonce is None or given.secret is None):
        missing = next(n for n in ("model", "nonce", "secret") if getattr(given, n) is None)
        raise WagleError(
            f"--forget needs --{missing}: the model to ask, a nonce drawn after the commitment, and "
            "the secret key that its maker hands over with the records"
        )
    if given.questions and not given.forget:
        raise WagleError("--questions need --forget: they are asked besides the drawn probes")
    if given.nonce is not None:
        check_nonce(given.nonce)


def _unsure(audit: Audit, reason: str) -> Audit:
    audit.outcome, audit.reason = UNSURE, reason
    return audit


def _read(pack: str | Path, given: Given, audit: Audit) -> Told:
    """The pack, with everything checked that it alone can show."""
    files = read_pack(pack)
    pinned = read_public(given.public_key) if given.public_key else None
    audit.passed.append(signed_by(files, pinned))
    told = told_in(files)
    audit.commitment = digest_of(told.commitment)
    if given.commitment is not None:
        if digest_of(read_commitment(Path(given.commitment))) != audit.commitment:
            raise Refused("the commitment in the pack is not the one that you were given before")
        audit.passed.append("the commitment is the one that you were given before")
    else:
        audit.passed.append(
            f"the commitment {audit.commitment[:12]} says that it was made "
            f"{told.claim['commitment']['when']} ({told.commitment['made']})"
        )
    if given.nonce is not None and any(given.nonce.encode() in data for data in files.values()):
        raise Refused("the nonce stands in the pack: it was not drawn by you after it was made")
    audit.passed.append("claim, ledger and evaluations agree with one another")
    return told


def _check_models(told: Told, given: Given, audit: Audit) -> None:
    """Fingerprints and files of the models that the auditor has."""
    from wagle.evaluation.models import find_model

    models = told.claim["models"]
    assert given.model is not None
    wanted = [("model", given.model, "result"), ("base", given.base, "base")]
    wanted.append(("reference", given.reference, "reference"))
    for name, path, role in wanted:
        if path is None:
            continue
        problem = other_model(find_model(path), models[role], models if role == "result" else None)
        if problem is not None:
            raise Refused(f"--{name} {path}: {problem}")
        audit.passed.append(f"{name} {path} is {models[role][:12]}, as in the pack")


def _ask(told: Told, given: Given, audit: Audit) -> None:
    """Ask the models about records that the nonce draws, and judge what they say."""
    assert given.model is not None
    assert given.secret is not None
    assert given.nonce is not None
    from wagle.evaluation.models import find_model
    from wagle.evaluation.tasks.questions import VERSION

    if told.version != VERSION:
        raise WagleError(
            f"the figures of the pack are of version {told.version}, this wagle computes version "
            f"{VERSION}; audit it with wagle {told.claim['wagle']}"
        )
    folder = find_model(given.model)
    inputs = inputs_for(folder, given.forget, told.commitment, told.settings)
    everything = inputs.need("forget")
    stated = told.commitment["forget"]
    if root_of(everything, read_secret(Path(given.secret))) != stated["root"]:
        raise Refused(
            f"these {len(everything)} records are not the forget set of the commitment "
            f"({stated['n']} records), or {given.secret} is not its secret key"
        )
    audit.passed.append(f"the {len(everything)} records are the forget set of the commitment")
    way = way_to_ask(inputs.encoder, told.settings)
    probes = _drawn(inputs, everything, told, audit)
    asked = _asker(given, folder, way, told.settings["attention"])
    found = {role: asked(role, probes, "forget") for role in ("model", "base", "reference")}
    _check_figures(told, found, audit)
    model, stored = found["model"], told.results.get("reference")
    assert model is not None
    goal = found["reference"] or (told_by(stored) if stored is not None else None)
    if goal is not None and found["reference"] is None:
        audit.passed.append(
            "the reference's figures are those of the pack: you gave no --reference"
        )
    audit.compared = compare(model, found["base"], goal)
    if given.questions:
        questions = read_records(given.questions, name="questions")
        said = {
            role: asked(role, questions, "questions") for role in ("model", "base", "reference")
        }
        assert said["model"] is not None
        audit.questions = compare(said["model"], said["base"], said["reference"])
    _judge(told, audit)


def _check_figures(told: Told, found: Mapping[str, PerRecord | None], audit: Audit) -> None:
    """Refuse a pack whose figures do not come out when they are computed again."""
    for role, result in (("model", "after"), ("base", "before"), ("reference", "reference")):
        own, stored = found[role], told.results.get(result)
        if own is None or stored is None:
            continue
        odd = contradiction(own, told_by(stored), told.protocol)
        if odd is not None:
            raise Refused(f"evaluation/{result}.json is not what {role} says: {odd}")
        gap = largest_gap(own, told_by(stored))
        audit.passed.append(
            f"the figures of evaluation/{result}.json come out the same (within {gap:.1g})"
        )


def _drawn(inputs: Inputs, everything: Sequence[Record], told: Told, audit: Audit) -> list[Record]:
    """The records that are asked about: drawn from those that were evaluated."""
    most, seed = told.settings["records"], told.settings["seed"]
    take = "all" if most is None or most >= len(everything) else most
    evaluated = read_records(list(everything), name="forget", take=take, seed=seed)
    assert audit.nonce is not None
    places = [record.place for record in evaluated]
    audit.drawn = draw_places(audit.commitment, audit.nonce, places, told.protocol.probes)
    audit.passed.append(
        f"{len(audit.drawn)} of {len(places)} records drawn by SHA-256(commitment "
        f"{audit.commitment[:12]}, nonce {audit.nonce})"
    )
    inputs.encoder.encode(evaluated)  # what is too long is an error of the input
    return [record for record in evaluated if record.place in set(audit.drawn)]


def _asker(
    given: Given, folder: Path, way: Way, attention: str
) -> Callable[[str, Sequence[Record], str], PerRecord | None]:
    """Asks a model by its role; None if the auditor has none for it."""
    from wagle.evaluation.models import find_model

    def ask(role: str, records: Sequence[Record], name: str) -> PerRecord | None:
        path = getattr(given, role)
        if path is None:
            return None
        where = folder if role == "model" else find_model(path)
        return ask_records(where, way, records, name, attention)

    return ask


def _judge(told: Told, audit: Audit) -> None:
    """The outcome: a leak anywhere, a positive control that found nothing, or neither."""
    for where, several in (("", audit.compared), ("your questions: ", audit.questions)):
        leaks = [one for one in several if one.leaks]
        if leaks:
            raise Refused(f"a leak: {where}{leaks[0].sentence()}")
    claimed = told.claim["verdict"]
    if claimed == INCONCLUSIVE:
        _unsure(audit, "the pack itself claims nothing: its verdict is inconclusive")
    elif claimed != NO_LEAK:
        raise Refused(f"the pack itself says so: its verdict is {claimed!r}")
    elif all(one.high is None for one in audit.compared):
        _unsure(audit, "there is no reference: nothing says what a model that never learned knows")
    elif all(one.base is None for one in audit.compared):
        _unsure(
            audit,
            "no positive control: give the model before unlearning with --base, or teach it again "
            "with reproduce.sh",
        )
    elif not any(one.fails_before for one in audit.compared):
        _unsure(audit, "the model before does not fail these probes: they could find nothing")
    else:
        audit.outcome = CONFIRMED
        audit.reason = f"{claimed}: " + "; ".join(one.sentence() for one in audit.compared)
