"""Records asked in other ways than they were forgotten, and what the answers give away.

An attack turns a record into one or more questions for its answer; the original answer is what is
measured. An attack that asks several questions counts with the highest probability of that answer
after any of them, and with the ROUGE-L recall of everything the model said to them, joined.

The largest of several figures grows with their number, also for a model that never knew the answer:
so ``worst`` is evidence only against a reference under the same attacks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wagle.attacks.kinds.prompts.means import PREFIX, WAYS_TO_ASK, Means
from wagle.data.overlap import check_disjoint
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers
from wagle.evaluation.figures import TARGET, Figure, Measured, Task, Written, mean_figure
from wagle.evaluation.tasks.questions import Item, figures, written
from wagle.evaluation.tasks.writing import rouge_figure
from wagle.metrics.table import METRICS
from wagle.metrics.text import has_rouge_words, rouge_l, words
from wagle.system.errors import WagleError, choose

PLAIN, WORST = "plain", "worst"
MEASURED = ("probability", "extraction_strength", "rouge_l")  # of METRICS


def ask_otherwise(
    encoder: Encoder,
    records: Sequence[Record],
    *,
    retain: Sequence[Record] | None = None,
    attacks: Sequence[str] | None = None,
    prefix: str = PREFIX,
    neighbours: int = 3,
    system_prompt: str | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> Task:
    """Ask for every record in other ways than it was forgotten.

    The figures of each attack are in a set of its name: the probability and the extraction strength
    of the answer, and the ROUGE-L recall of what the model says. There are two more sets:
    ``plain``, the question as it is, and ``worst``, the largest per record and figure over the
    attacks, not counting ``plain``. A record in whose answer ROUGE sees no word has no ROUGE-L.

    Args:
        encoder: makes tokens of records, in the way the model is normally asked.
        records: records to be forgotten: questions with answers.
        retain: questions with answers that the model should know, for ``context``.
        attacks: names in WAYS_TO_ASK; None: all that have the data they need.
        prefix: the beginning of the answer that ``prefix`` puts into the model's mouth.
        neighbours: how many retain records ``context`` shows, >= 1.
        system_prompt: the one ``system`` asks under, such as the benchmark's; needs a chat
            template.
        max_new_tokens: the longest greedy answer.
        seed: for the intervals.

    Raises:
        WagleError: there is no record; a record is not a question or lacks what an attack needs; an
            attack is unknown, or there is none; an answer does not fit; a setting is invalid.
    """
    _check(records, retain, prefix, neighbours, max_new_tokens)
    means = Means(
        encoder,
        retain=[(frozenset(words(r.prompt)), r) for r in retain or () if r.kind == "qa"],
        prefix=prefix.strip(),
        neighbours=neighbours,
        system_prompt=system_prompt,
        max_new_tokens=max_new_tokens,
    )
    asked = {PLAIN: {r.place: means.ask(r, [r.prompt]) for r in records}}
    asked |= _chosen(records, means, attacks)

    def measure(answers: Answers) -> Measured:
        rows, texts = {}, {}
        for name, made in asked.items():
            said = {place: _said(items, answers, encoder) for place, items in made.items()}
            rows[name] = _rows(name, made, said, answers)
            texts[name] = [text for several in said.values() for text in several]
        rows[WORST] = _worst([found for name, found in rows.items() if name != PLAIN])
        return Measured({name: _figures(found, seed) for name, found in rows.items()}, texts)

    made = [item for rows in asked.values() for items in rows.values() for item in items]
    return Task(
        [request for item in made for request in item.requests],
        measure,
        data={"records": len(records), "attacks": [name for name in asked if name != PLAIN]},
    )


def _check(
    records: Sequence[Record],
    retain: Sequence[Record] | None,
    prefix: str,
    neighbours: int,
    max_new_tokens: int,
) -> None:
    if not records:
        raise WagleError("prompt attacks need at least one record")
    for record in records:
        if record.kind != "qa":
            raise WagleError(
                f"prompt attacks need questions with answers; {record.place} is of the kind "
                f"{record.kind!r}"
            )
    if not prefix.strip():
        raise WagleError("prefix is empty; give the first words of an answer")
    if neighbours < 1:
        raise WagleError(f"neighbours is {neighbours}; show at least one retain record")
    if max_new_tokens < 1:
        raise WagleError(f"max_new_tokens is {max_new_tokens}; let an answer have at least one")
    check_disjoint(records, retain or ())  # otherwise the context would hold the answer


def _chosen(
    records: Sequence[Record], means: Means, attacks: Sequence[str] | None
) -> dict[str, dict[str, list[Item]]]:
    """What each attack asks, by attack and place."""
    asked = {}
    for name in WAYS_TO_ASK if attacks is None else attacks:
        attack = choose(WAYS_TO_ASK, name, "prompt attack")
        made = {record.place: attack.ask(record, means) for record in records}
        lacking = [place for place, items in made.items() if not items]
        if attacks is None and len(lacking) == len(records):
            continue
        if lacking:
            raise WagleError(
                f"the prompt attack {name} needs {attack.needs}, which {len(lacking)} of "
                f"{len(records)} records lack ({lacking[0]} is the first); add it, or name the "
                "other attacks in attacks"
            )
        asked[name] = made
    if not asked:
        raise WagleError(f"attacks is empty; name some of {', '.join(WAYS_TO_ASK)}")
    return asked


# ---------------------------------------------------------------------------------------------
# What they bring back


def _said(items: Sequence[Item], answers: Answers, encoder: Encoder) -> list[Written]:
    """What the model wrote to each of one attack's questions for a record."""
    return [text for item in items if (text := written(item, answers, encoder)) is not None]


def _rows(
    name: str,
    made: Mapping[str, Sequence[Item]],
    said: Mapping[str, Sequence[Written]],
    answers: Answers,
) -> dict[str, dict[str, float]]:
    """The figures of one attack, by metric and place."""
    rows: dict[str, dict[str, float]] = {metric: {} for metric in MEASURED}
    for place, items in made.items():
        found = [figures(item, answers, None) for item in items]
        for metric in ("probability", "extraction_strength"):
            values = [each[metric] for each in found]
            if not all(map(math.isfinite, values)):  # max would hide it
                raise WagleError(f"{place}: {metric} is not finite under the prompt attack {name}")
            rows[metric][place] = max(values)
        answer = items[0].record.answer
        if has_rouge_words(answer):
            rows["rouge_l"][place] = rouge_l(answer, " ".join(text.said for text in said[place]))
    return rows


def _worst(
    attacks: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    return {
        metric: {place: max(rows[metric][place] for rows in attacks) for place in places}
        for metric, places in attacks[0].items()
    }


def _figures(rows: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, Figure]:
    made = {}
    for metric, found in rows.items():
        unit = METRICS[metric].unit
        if metric == "rouge_l":
            mute = len(rows["probability"]) - len(found)
            made[metric] = rouge_figure(
                found, mute, unit=unit, direction=TARGET, target="reference", seed=seed
            )
        else:
            made[metric] = mean_figure(found, unit=unit, target="reference", seed=seed)
    return made
