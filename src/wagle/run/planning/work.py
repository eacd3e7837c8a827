"""What a recipe asks for in numbers: records, tokens, steps, questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wagle.data.batches import by_length
from wagle.data.records import Record
from wagle.data.tokens import Tokens
from wagle.evaluation.figures import SETS
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.training import Training
from wagle.run.inputs import Inputs
from wagle.run.planning.formulas import Asked, Steps
from wagle.run.planning.terms import Batch
from wagle.system.errors import WagleError

_LOOK = 64  # retain records of a look
_ASSUMED = 64  # records of a set that cannot be read


@dataclass(frozen=True)
class Counted:
    """A set of records in numbers.

    Attributes:
        lengths: tokens of each.
        scored: scored tokens of each.
        asked: answers whose likelihood an evaluation asks, each: right, paraphrased and wrong ones.
    """

    lengths: tuple[int, ...]
    scored: tuple[int, ...]
    asked: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self.lengths)


def count_sets(
    recipe: Recipe, inputs: Inputs, *, tokenised: bool, longest: int | None = None
) -> tuple[dict[str, Counted], str]:
    """The sets of a recipe in numbers, and in words how they were found.

    Args:
        recipe: the recipe.
        inputs: reads its records.
        tokenised: whether the model's tokenizer is there; without it, a record counts as long as
            ``model.max_length`` allows.
        longest: tokenise only so many records of a set, those with the longest texts.
    """
    try:
        sets = {name: list(records) for name, records in inputs.sets.items()}
    except WagleError as error:
        most = recipe.model.max_length
        made = Counted((most,) * _ASSUMED, (most // 2,) * _ASSUMED, (1,) * _ASSUMED)
        given = [name for name in SETS if getattr(recipe, name) is not None]
        said = (
            f"assumed: {_ASSUMED} records of {most} tokens a set, as they cannot be read ({error})"
        )
        return dict.fromkeys(given, made), said
    if recipe.finetune is not None and recipe.finetune.records is not None:
        sets["records"] = inputs.read("records", recipe.finetune.records)
    if not tokenised:
        found = {name: _as_long_as_can_be(recipe, records) for name, records in sets.items()}
        return (
            found,
            f"read; each counts as {recipe.model.max_length} tokens: no tokenizer is there",
        )
    counted = {name: _some(records, inputs, longest) for name, records in sets.items()}
    return counted, "read and tokenised"


def _some(records: Sequence[Record], inputs: Inputs, longest: int | None) -> Counted:
    """Records in numbers, if ``longest`` is given only that many of them tokenised."""
    if longest is None or len(records) <= longest:
        return _count(records, inputs.encoder.encode(records))
    chosen = sorted(records, key=_characters)[-longest:]
    found, rest = _count(chosen, inputs.encoder.encode(chosen)), len(records) - longest
    return Counted(
        found.lengths + (min(found.lengths),) * rest,
        found.scored + (min(found.scored),) * rest,
        found.asked + (min(found.asked),) * rest,
    )


def _characters(record: Record) -> int:
    """How long a record's texts are, roughly."""
    said = sum(len(turn.content) for turn in record.messages)
    return len(record.prompt or "") + len(record.answer or "") + said + 4 * len(record.input_ids)


def _as_long_as_can_be(recipe: Recipe, records: Sequence[Record]) -> Counted:
    longest = recipe.model.max_length
    answers = tuple(1 + len(r.perturbed_answers) for r in records)
    return Counted((longest,) * len(records), (longest // 2,) * len(records), answers)


def _count(records: Sequence[Record], tokens: Sequence[Tokens]) -> Counted:
    more = {r.place: len(r.perturbed_answers) + (r.paraphrased_answer is not None) for r in records}
    return Counted(
        tuple(len(t.ids) for t in tokens),
        tuple(sum(t.scored) for t in tokens),
        tuple(1 + more.get(t.place, 0) for t in tokens),
    )


def batch_of(sets: Sequence[Counted], records: int) -> Batch:
    """A micro-batch as large as one of these sets makes: its longest records, padded."""
    best = Batch(0, 0, 0)
    for one in sets:
        here = min(records, one.count)
        if here:
            width = -(-max(one.lengths) // 8) * 8
            scored = sum(sorted(one.scored)[-here:])
            best = max(best, Batch(here, width, scored), key=lambda b: b.tokens)
    return best


def _padded(one: Counted, records: int) -> float:
    """Padded tokens of a pass over a set, in batches of so many records drawn at random."""
    return float(one.count * (-(-_typical_longest(one, records) // 8) * 8))


def _typical_longest(one: Counted, records: int) -> int:
    """The length that the longest of a few records drawn at random has, as a rule."""
    ordered = sorted(one.lengths)
    return ordered[min(len(ordered) - 1, int(len(ordered) * records / (records + 1)))]


def teaching(recipe: Recipe, sets: dict[str, Counted], *, without: str = "") -> Steps | None:
    """The steps of ``teach``, or of ``retrain``, which leaves out a set; None if nothing is taught."""
    settings = recipe.finetune
    names = [n for n in recipe.taught_sets() if n != without and n in sets]
    if settings is None or not names:
        return None
    every = [sets[name] for name in names]
    count = sum(one.count for one in every)
    each = settings.batch_size * settings.accumulation
    steps = settings.max_steps or settings.epochs * math.ceil(count / each)
    share = steps * each / max(1, count)
    return Steps(
        batch_of(every, settings.batch_size),
        steps,
        share * sum(_padded(one, settings.batch_size) for one in every),
        share * sum(sum(one.scored) for one in every),
        micros=settings.accumulation,
    )


def forgetting(recipe: Recipe, sets: dict[str, Counted]) -> Steps:
    """The steps of ``unlearn``: forget and retain records in equal numbers, and looks at both."""
    settings: Training = recipe.unlearning
    forget = sets["forget"]
    sides = [one for one in (forget, sets.get("retain")) if one is not None]
    anchor = sets.get(recipe.unlearning.anchor, forget)
    each = settings.batch_size * settings.accumulation
    steps = settings.max_steps or settings.epochs * math.ceil(anchor.count / each)
    drawn = steps * min(each, anchor.count)
    tokens = sum(_padded(one, settings.batch_size) * drawn / one.count for one in sides)
    scored = sum(sum(one.scored) * drawn / one.count for one in sides)
    look = float(sum(forget.lengths))
    if _looks_at_retain(recipe):
        look += _LOOK * sum(sum(one.lengths) / one.count for one in sides[1:])
    return Steps(
        batch_of(sides, settings.batch_size),
        steps,
        tokens,
        scored,
        look * (steps / recipe.unlearning.check_every + 2),
        settings.accumulation * len(sides),
    )


def _looks_at_retain(recipe: Recipe) -> bool:
    """Whether looks ask about records to keep: for a rule, for the best, or for the log."""
    settings = recipe.unlearning
    rules = [] if settings.stop_when == "auto" else settings.stop_when
    said = " ".join([*rules, settings.best or ""])
    return "retain." in said or settings.best == "auto" or settings.evaluate_every is not None


def attributing(recipe: Recipe, sets: dict[str, Counted]) -> Steps:
    """The passes of ``gradients``: the forget set, and retain records up to four for each."""
    settings = recipe.attribution
    forget, retain = sets["forget"], sets.get("retain")
    sides = [(forget, forget.count)]
    if retain is not None:
        most = settings.retain_records or 4 * forget.count
        sides.append((retain, min(most, retain.count)))
    tokens = sum(sum(one.lengths) * used / one.count for one, used in sides)
    scored = sum(sum(one.scored) * used / one.count for one, used in sides)
    batch = Batch(0, 0, 0)
    for one, _ in sides:
        for group in by_length(one.lengths, settings.batch_tokens):
            width = -(-max(one.lengths[i] for i in group) // 8) * 8
            here = Batch(len(group), width, sum(one.scored[i] for i in group))
            batch = max(batch, here, key=lambda b: b.tokens)
    micros = math.ceil(tokens / settings.batch_tokens)
    return Steps(batch, len(sides), 1.05 * tokens, scored, micros=micros)


def asking(recipe: Recipe, sets: dict[str, Counted]) -> Asked:
    """The questions of one evaluation of the recipe's own sets."""
    settings = recipe.evaluation
    tokens = scored = context = 0.0
    texts = 0
    for name in SETS:
        if name not in sets or not sets[name].count:
            continue
        one = sets[name]
        share = min(1.0, (settings.records or one.count) / one.count)
        asked = sum(a * s for a, s in zip(one.asked, one.scored, strict=True))
        contexts = sum(one.lengths) - sum(one.scored)
        tokens += share * (contexts + asked)
        scored += share * asked
        context += share * contexts
        texts += round(share * one.count)
    written = texts if settings.generate else 0
    made = Asked(tokens, scored, written, context / max(1, texts), settings.max_new_tokens)
    return made if settings.batch_tokens is None else replace(made, budget=settings.batch_tokens)


def readable(folder: Path) -> bool:
    """Whether a tokenizer lies in a model folder."""
    return any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    )
