"""The probe protocol: how many questions an audit asks, which ones, and what counts as a leak.

It is fixed in the commitment, before unlearning. Which records are asked about is drawn by SHA-256
of the commitment's digest and a nonce that the auditor chooses afterwards, so that neither side
can choose the probes alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wagle.system.errors import Refused, WagleError

DRAW = "smallest SHA-256(commitment digest, nonce, place) first"
RULE = "the mean over the probes lies above the reference's 95 % interval over the same probes"
FIGURES = ("probability", "paraphrased", "extraction_strength", "exact_memorization")
WORDINGS = ("the question as it is", "the paraphrased question", "questions of the auditor")
LEAST, MOST = 16, 64  # how many records are drawn unless the maker says otherwise
SHORTEST = 8  # characters of a nonce: fewer could be tried out by the maker
TOLERANCES = {"float32": 0.005, "bfloat16": 0.05}
ODD_ONES = 0.1  # share of the records whose counted tokens may differ: a tie falls differently


@dataclass(frozen=True)
class Protocol:
    """What an audit asks.

    Attributes:
        probes: how many records of the forget set are drawn.
        figures: which figures are taken of each; a record without a paraphrase has no such figure.
        wordings: the ways to ask.
        draw: how the records are drawn, in words.
        leak: what counts as a leak, in words.
        tolerance: by how much a probability that is computed again may differ.
        odd_ones: the share of the records whose number of predicted tokens may differ.
    """

    probes: int
    figures: tuple[str, ...] = FIGURES
    wordings: tuple[str, ...] = WORDINGS
    draw: str = DRAW
    leak: str = RULE
    tolerance: float = TOLERANCES["float32"]
    odd_ones: float = ODD_ONES

    def to_json(self) -> dict[str, Any]:
        """The protocol as JSON values."""
        found = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @classmethod
    def from_json(cls, data: Any) -> Protocol:
        """Read a protocol back.

        Raises:
            Refused: a setting is missing or unknown, or the probes are chosen in another way.
        """
        known = set(cls(1).to_json())
        if not isinstance(data, dict) or set(data) != known:
            odd = sorted(set(data) ^ known)[0] if isinstance(data, dict) else "protocol"
            raise Refused(
                f"the probe protocol has {odd!r} missing or added: probes are drawn by the auditor's "
                "nonce, never chosen by the maker"
            )
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        found = cls(**plain)
        fair = cls(found.probes, tolerance=found.tolerance)
        number = isinstance(found.probes, int) and found.probes >= 1
        if not number or found != fair or found.tolerance not in TOLERANCES.values():
            raise Refused(
                "the probe protocol is not the one of wagle: its figures, its draw or its limits "
                "were changed"
            )
        return found


def protocol_for(count: int, precision: str = "float32", probes: int | None = None) -> Protocol:
    """The protocol for a forget set of ``count`` records.

    Args:
        count: how many records there are.
        precision: in which figures were computed.
        probes: how many to draw; None: a quarter of them, at least 16 and at most 64.

    Raises:
        WagleError: there are not as many records.
    """
    wanted = min(count, max(LEAST, min(MOST, count // 4))) if probes is None else probes
    if not 0 < wanted <= count:
        raise WagleError(f"--probes asks for {wanted} of {count} records; give 1 to {count}")
    return Protocol(wanted, tolerance=TOLERANCES[precision])


def check_nonce(nonce: str) -> None:
    """Refuse a nonce that the maker of a pack could have foreseen.

    Raises:
        WagleError: it is too short.
    """
    if len(nonce.strip()) < SHORTEST:
        raise WagleError(
            f"the nonce {nonce!r} is too short to be unforeseen; draw one now, such as by: openssl "
            "rand -hex 16"
        )


def draw_places(commitment: str, nonce: str, places: Sequence[str], count: int) -> list[str]:
    """The places of the records to ask about, in their order in ``places``.

    Args:
        commitment: the digest of the commitment, 64 hex digits.
        nonce: the auditor's.
        places: all records, ``forget[0]`` and so on.
        count: how many to draw.
    """
    if count > len(places):
        raise WagleError(f"the protocol draws {count} of {len(places)} records; too few were given")

    def drawn(place: str) -> str:
        return hashlib.sha256("\0".join([commitment, nonce, place]).encode()).hexdigest()

    chosen = set(sorted(places, key=drawn)[:count])
    return [place for place in places if place in chosen]
