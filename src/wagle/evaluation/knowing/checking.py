"""Check what a model knows about some records, what its base knew, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.overlap import leave_out
from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, as_encoder
from wagle.evaluation.knowing.advice import Case, Remedy, advise, reasons
from wagle.evaluation.knowing.asking import FIGURES, Questions, Readings, Speed, make_questions
from wagle.evaluation.knowing.deciding import (
    LEAST,
    LEVEL,
    UNCLEAR,
    Finding,
    decide,
    decide_beside_base,
    find,
    gained,
)
from wagle.evaluation.models import Way, find_model
from wagle.evaluation.served.engines import open_to_ask
from wagle.model.adapters import load_merged
from wagle.model.loading import load_tokenizer
from wagle.model.placing import place
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back

SCHEMA = "wagle-check/1"
TWINS = 4  # twins per record


@dataclass(frozen=True)
class Knower:
    """One model that was asked.

    Attributes:
        path: its folder.
        adapter: the folder of the adapter on top of it, or None.
        fingerprint: of its weights, the adapter merged.
        word: ``knows``, ``does not know`` or ``cannot tell``, by itself.
        findings: what was found, by figure.
    """

    path: str
    adapter: str | None
    fingerprint: str
    word: str
    findings: Mapping[str, Finding]


@dataclass(frozen=True)
class Knowledge:
    """What a model knows about some records.

    Attributes:
        verdict: ``knows``, ``does not know``, ``cannot tell`` or ``base knows``.
        reasons: sentences that say why.
        advice: what to do, the cheapest right way first.
        models: what was found, by role: ``model`` and ``base``.
        records: how many records were compared with twins.
        alone: how many have no twin and were left out.
        twins: how many twins each record has.
        speed: how fast the model answered.
        seed: of the twins and tests.
    """

    verdict: str
    reasons: tuple[str, ...]
    advice: tuple[Remedy, ...]
    models: Mapping[str, Knower]
    records: int
    alone: int
    twins: int
    speed: Speed
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, its verdict first; without text of records."""
        models = {
            role: {
                **{k: v for k, v in vars(one).items() if k != "findings"},
                "figures": {
                    name: {"unit": FIGURES[name], **found._asdict(), "known": found.known}
                    for name, found in one.findings.items()
                },
            }
            for role, one in self.models.items()
        }
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "advice": [remedy.to_json() for remedy in self.advice],
            "models": models,
            "records": self.records,
            "without_twin": self.alone,
            "twins": self.twins,
            "least": LEAST,
            "speed": self.speed._asdict(),
            "seed": self.seed,
        }


def check_knowledge(
    model: str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None = None,
    *,
    forget: Source,
    base: str | Path | None = None,
    adapter: str | Path | None = None,
    records: Source | None = None,
    twins: int = TWINS,
    batch_tokens: int | None = None,
    precision: str = "float32",
    seed: int = 0,
    named: Mapping[str, str] | None = None,
) -> Knowledge:
    """Ask whether a model knows some records, next to invented twins that nobody knows.

    Args:
        model: a model folder, or a run folder (its model).
        tokenizer: a fast tokenizer or an ``Encoder``; None takes the model folder's own.
        forget: the records in question.
        base: the model that it was trained from. It tells what was known before, and cancels out
            that a model finds real names likelier than invented ones.
        adapter: a PEFT adapter folder. Without ``base``, the model is asked with it, and its base
            is the model without it. With ``base``, the model has it already, and it is only what
            advice is about.
        records: everything that the adapter was taught, for an estimate of retraining it.
        twins: how many invented twins each record gets.
        batch_tokens: padded tokens per forward pass; None: as many as memory allows.
        precision: the precision of matrix products: ``float32``, or ``bfloat16`` (autocast).
        seed: of the twins, the tests and the intervals.
        named: what commands in the advice call ``forget`` and ``records``.

    Raises:
        WagleError: a model or an adapter is missing or does not fit, there are no records, none of
            them names anything, or answers are not finite.
    """
    home = find_model(model)
    encoder = as_encoder(load_tokenizer(home) if tokenizer is None else tokenizer)
    asked = read_records(forget, name="forget", seed=seed)
    taught = None if records is None else read_records(records, name="records", seed=seed)
    questions = make_questions(asked, encoder, twins=twins, seed=seed)
    way = Way(encoder, precision, batch_tokens)
    merged = adapter if base is None else None
    other = find_model(base) if base is not None else home if adapter is not None else None
    own = open_to_ask(home).model if merged is None else place(load_merged(home, merged))
    weights = own.num_parameters()
    mine, read, speed = _knower(own, home, merged, questions, way, seed)
    del own
    give_memory_back()
    models, verdict = {"model": mine}, mine.word
    if other is not None:
        models["base"], before = _base(other, mine, questions, way, seed)
        more = gained(read, before, seed)
        verdict = decide_beside_base(mine.word, models["base"].word, more)
    case = Case(
        model=str(model),
        base=None if base is None else str(base),
        adapter=None if adapter is None else str(adapter),
        forget=(named or {}).get("forget", "FORGET"),
        records=(named or {}).get("records"),
        count=len(asked),
        tokens=questions.tokens,
        taught=None if taught is None else len(leave_out(taught, asked)[0]),
        weights=weights,
        bytes=_size(home),
        adapter_bytes=0 if adapter is None else _size(Path(adapter)),
        speed=speed,
    )
    return _concluded(verdict, models, case, questions, seed)


def _base(
    home: Path, mine: Knower, questions: Questions, way: Way, seed: int
) -> tuple[Knower, Mapping[str, Readings]]:
    """What a model's base knows; a model is not its own base."""
    live = open_to_ask(home).model
    if fingerprint(live) == mine.fingerprint:
        raise WagleError(
            f"{mine.path} and its base {home} are the same model; leave --base out, or name the "
            "model that it was trained from"
        )
    made, read, _ = _knower(live, home, None, questions, way, seed)
    return made, read


def _concluded(
    verdict: str, models: Mapping[str, Knower], case: Case, questions: Questions, seed: int
) -> Knowledge:
    """A verdict with its reasons and what to do about it."""
    words = {role: one.word for role, one in models.items()}
    said = [_sentence(name, found) for name, found in models["model"].findings.items()]
    asked = questions.twins
    return Knowledge(
        verdict,
        reasons(verdict, words, said, asked.alone, case.count),
        tuple(advise(verdict, words.get("base"), case)),
        models,
        len(asked.records),
        asked.alone,
        len(asked.sets),
        case.speed,
        seed,
    )


def word_about(
    model: PreTrainedModel, way: Way, forget: Source, *, seed: int = 0, twins: int = TWINS
) -> str:
    """A model's word about some records; ``cannot tell`` if none of them has a twin.

    Args:
        model: the live model.
        way: how it is asked.
        forget: the records.
        seed: of twins and tests.
        twins: how many twins each record gets.
    """
    records = read_records(forget, name="forget", seed=seed)
    try:
        questions = make_questions(records, way.encoder, twins=twins, seed=seed)
    except WagleError:
        return UNCLEAR
    return decide(find(questions.ask(model, way)[0], seed))


def _knower(
    live: PreTrainedModel,
    home: Path,
    adapter: str | Path | None,
    questions: Questions,
    way: Way,
    seed: int,
) -> tuple[Knower, Mapping[str, Readings], Speed]:
    read, speed = questions.ask(live, way)
    found = find(read, seed)
    path = None if adapter is None else str(adapter)
    made = Knower(str(home), path, fingerprint(live), decide(found), found)
    return made, read, speed


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _sentence(name: str, found: Finding) -> str:
    """What a figure says, in a sentence."""
    gap = f"{name} {found.records:.3f} is {found.gap:+.3f} from the twins' {found.twins:.3f}"
    if found.known:
        return f"{gap}: more than chance (p {found.p:.2g}) and than names explain."
    if found.unknown:
        return f"{gap}: whatever there is, it is less than {LEAST:g}."
    if found.p >= LEVEL:
        why = f"too uncertain to exclude {LEAST:g}"
    elif found.gap < LEAST:
        why = f"too little to count, too uncertain to exclude {LEAST:g}"
    elif found.effect < LEAST:
        why = "most of it shows after other questions too, so it is names rather than knowledge"
    else:
        why = f"sets of twins alone may differ by {found.reach:.3f}"
    return f"{gap}: {why}."
