"""The benchmark ``qa``: questions with answers, paraphrases, wrong answers; also texts and chats.

Per record: the probability and memorisation of its answer, and the greedy answer; how the right
answer compares with wrong ones; and the answer's probability after the paraphrased question, which
was never trained on. With records that no model was trained on, the set ``holdout``, also
membership attacks. ``VERSION`` is raised with every new definition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

from wagle.data.records import Record
from wagle.data.tokens import Encoder, Tokens
from wagle.evaluation.asking.requests import Answers, Greedy, Likelihood, Request, likelihood
from wagle.evaluation.comparable import asked_text, template_settings
from wagle.evaluation.figures import (
    GONE,
    HOLDOUT,
    OVERALL,
    Figure,
    Measured,
    Task,
    Written,
    distance_figures,
    joined,
    mean_figure,
)
from wagle.evaluation.judges.classifiers import Judges, load_judges
from wagle.evaluation.membership.leakage import HEADLINE, asked_figures, asked_leakage, check_asked
from wagle.evaluation.membership.requests import (
    Attack,
    Probe,
    attack_table,
    headline_share,
    probe_answers,
)
from wagle.evaluation.membership.sets import compare_records
from wagle.evaluation.served.absent import absent_figure, absent_metrics, is_absent
from wagle.evaluation.tasks.writing import rouge_figure, writing_figures
from wagle.evaluation.tasks.writing import written as written_text
from wagle.metrics.metric import Answered, values
from wagle.metrics.statistics import same_records
from wagle.metrics.table import METRICS, PROBES
from wagle.metrics.utility import forget_quality
from wagle.system.errors import WagleError

VERSION = 5
OF_RECORDS = {name: kind for name, kind in METRICS.items() if not kind.everywhere}


@dataclass(frozen=True)
class Item:
    """One record's requests, by role, and the tokens they come from.

    ``name`` is the record's place; the second window of a long text is ``forget[3]@1``.
    """

    name: str
    record: Record
    tokens: Tokens
    likely: Mapping[str, Likelihood]
    greedy: Greedy | None

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [*self.likely.values(), *([self.greedy] if self.greedy else [])]


def qa(
    encoder: Encoder,
    *,
    sets: Mapping[str, Sequence[Record]],
    max_new_tokens: int = 128,
    generate: bool = True,
    fluency: str | Path | None = None,
    entailment: str | Path | None = None,
    attacks: Sequence[str] | None = None,
    k: Sequence[float] | None = None,
    seed: int = 0,
) -> Task:
    """Ask what the model knows about every record of some sets.

    Args:
        encoder: makes tokens of records.
        sets: the records, by set; the model should know less of ``forget`` and ``forgotten``. For
            ``holdout``, only what membership attacks need is asked.
        max_new_tokens: the longest greedy answer.
        generate: also generate greedy answers.
        fluency: a folder or hub name of a classifier with the label ``clean``: the probability that
            an answer is language. None: not measured.
        entailment: a folder or hub name of a classifier of text pairs with the label
            ``entailment``: whether an answer entails the right one (for sets to keep: follows from
            it). None: not measured.
        attacks: names of membership attacks; None: all except ``gradnorm``, which takes a backward
            pass per record. ``reference`` comes with a reference model.
        k: shares of tokens for ``min_k`` and ``min_k++``, exact as decimals; the first, or 0.4 if
            none is given, is the one in the headline.
        seed: for the bootstrap.

    Raises:
        WagleError: a classifier that is missing, is no classifier or lacks the label; membership
            attacks that are unknown or lack a set; a record in both of their sets.
    """
    table = _attacks(sets, attacks, k)
    asked = {
        name: items(records, encoder, max_new_tokens=max_new_tokens, generate=generate)
        for name, records in sets.items()
        if name != HOLDOUT
    }
    writes = any(item.greedy for made in asked.values() for item in made)
    judges = load_judges(fluency, entailment, writes=writes)
    probes, note = _probes(encoder, sets, table, seed)

    def measure(answers: Answers) -> Measured:
        found = [
            _measure(name, made, answers, encoder, seed, judges) for name, made in asked.items()
        ]
        if probes:
            found.append(Measured(asked_figures(probes, answers, table, note=note, seed=seed)))
        return reduce(joined, found, Measured({}))

    groups: list[Sequence[Item | Probe]] = [*asked.values(), *probes.values()]
    return Task(
        [request for group in groups for one in group for request in one.requests],
        measure,
        against=partial(_against, seed),
        probes=[
            *(("forget", metric) for metric in PROBES if "forget" in asked),
            *([(OVERALL, "privleak")] if HEADLINE in table else []),
        ],
        records={n: _records(encoder, records, asked.get(n)) for n, records in sets.items()},
        settings={
            "version": VERSION,
            **template_settings(encoder),
            "max_new_tokens": max_new_tokens if generate else None,
            "k": headline_share(table, k),
            **judges.settings,
        },
        fits=partial(_fits, asked.get("forget", []), probes, table),
    )


def _attacks(
    sets: Mapping[str, Sequence[Record]], names: Sequence[str] | None, k: Sequence[float] | None
) -> dict[str, Attack]:
    """The membership attacks that the sets allow, by label; empty without a holdout set."""
    table = attack_table(names, k)
    if HOLDOUT not in sets:
        if names is not None or k is not None:
            raise WagleError(
                "attacks and k belong to membership attacks, which need a holdout set: records "
                "like those to forget that no model was trained on; add one, or leave them out"
            )
        return {}
    if "forget" not in sets:
        raise WagleError("a holdout set needs a forget set; add one, or leave the holdout set out")
    return table


def _probes(
    encoder: Encoder, sets: Mapping[str, Sequence[Record]], table: Mapping[str, Attack], seed: int
) -> tuple[dict[str, list[Probe]], str | None]:
    """What membership attacks ask about both of their sets, and a note for the reader."""
    if not table:
        return {}, None
    note = compare_records(sets["forget"], sets[HOLDOUT], seed)
    both = ("forget", HOLDOUT)
    return {name: probe_answers(sets[name], encoder.encode, table) for name in both}, note


def _records(
    encoder: Encoder, records: Sequence[Record], asked: Sequence[Item] | None
) -> dict[str, str]:
    """What was asked about, by place; for records that were cut, also at how many tokens."""
    made = encoder.encode(records) if asked is None else [item.tokens for item in asked]
    limit = encoder.max_length
    windows = Counter(tokens.place for tokens in made)
    cut = {tokens.place for tokens in made if not tokens.whole or windows[tokens.place] > 1}
    return {r.place: asked_text(r, *([limit] if r.place in cut else [])) for r in records}


def _fits(
    made: Sequence[Item],
    probes: Mapping[str, Sequence[Probe]],
    attacks: Mapping[str, Attack],
    reference: Measured,
    role: str = "reference",
) -> None:
    """Refuse a reference for other records wherever a figure needs the same ones."""
    mine = {item.name: 0.0 for item in made if item.record.perturbed_answers}
    other = reference.figures.get("forget", {}).get("know")
    if mine and other is not None and not is_absent(other):
        same_records(mine, other.per_record, "forget quality")
    check_asked(probes, attacks, reference.figures, role, refuse=False)


def _against(seed: int, own: Measured, reference: Measured) -> Measured:
    """Forget quality, if forget records have wrong answers; leakage, with a holdout set.

    With your own records, a reference may tell the two sets apart too well because of the sets
    themselves: the leakage is then not reported, but the other figures are.
    """
    leaks = asked_leakage(own.figures, reference.figures, seed=seed, refuse=False)
    figures = {**_quality(own, reference), **leaks}
    return Measured({OVERALL: figures} if figures else {})


def _quality(own: Measured, reference: Measured) -> dict[str, Figure]:
    """Forget quality, if forget records have wrong answers.

    It is taken from ``know``, which falls as the truth ratio rises: the test depends only on ranks.
    """
    mine, other = (m.figures.get("forget", {}).get("know") for m in (own, reference))
    if mine is None or other is None or is_absent(mine) or is_absent(other):
        return {}
    same_records(mine.per_record, other.per_record, "forget quality")
    found = forget_quality([*mine.per_record.values()], [*other.per_record.values()])
    return distance_figures("forget_quality", found)


def items(
    records: Sequence[Record], encoder: Encoder, *, max_new_tokens: int, generate: bool
) -> list[Item]:
    """The requests of every record (every window, for long texts)."""
    made = []
    homes = {record.place: record for record in records}
    windows: Counter[str] = Counter()
    for tokens in encoder.encode(records):
        record, window = homes[tokens.place], windows[tokens.place]
        windows[tokens.place] += 1
        likely = {"answer": likelihood(tokens)}
        if record.kind == "qa":
            likely.update(_questions(record, encoder))
        written = record.kind in ("qa", "chat") and generate
        greedy = Greedy(tokens.last_context, max_new_tokens, tokens.place) if written else None
        name = f"{record.place}@{window}" if window else record.place
        made.append(Item(name, record, tokens, likely, greedy))
    return made


def _questions(record: Record, encoder: Encoder) -> dict[str, Likelihood]:
    asked: dict[str, Likelihood] = {}
    if record.paraphrased_answer:
        tokens = encoder.answer(record, record.prompt, record.paraphrased_answer)
        asked["paraphrased_answer"] = likelihood(tokens)
    for number, wrong in enumerate(record.perturbed_answers):
        asked[f"perturbed_{number}"] = likelihood(encoder.answer(record, record.prompt, wrong))
    if record.paraphrased_prompt:
        tokens = encoder.answer(record, record.paraphrased_prompt, record.answer)
        asked["paraphrased"] = likelihood(tokens)
    return asked


def _measure(
    name: str, made: Sequence[Item], answers: Answers, encoder: Encoder, seed: int, judges: Judges
) -> Measured:
    rows: dict[str, dict[str, float]] = {}
    texts = []
    for item in made:
        said = written(item, answers, encoder)
        for metric, value in figures(item, answers, said.said if said else None).items():
            rows.setdefault(metric, {})[item.name] = value
        texts += [said] if said else []
    mute = len(texts) - len(rows.get("rouge_l", {}))
    absent = absent_metrics(answers.absent, lambda: _wanted(made))
    found: dict[str, Figure] = {}
    for metric, kind in OF_RECORDS.items():
        about: dict[str, Any] = {
            "unit": kind.unit,
            "direction": kind.direction if name in GONE else kind.kept,
            "target": "reference" if name == "forget" and kind.direction == "target" else None,
            "seed": seed,
        }
        if metric == "rouge_l" and texts:
            found[metric] = rouge_figure(rows.get(metric, {}), mute, **about)
        elif metric in rows:
            found[metric] = mean_figure(rows[metric], share=kind.share, **about)
        elif metric in absent:
            found[metric] = absent_figure(absent[metric], **about)
    if texts:
        target = "reference" if name == "forget" else None
        found |= writing_figures(texts, seed, judges, gone=name in GONE, target=target)
    return Measured({name: found}, {name: texts})


def figures(item: Item, answers: Answers, text: str | None) -> dict[str, float]:
    """The figures of one record, by metric; those it has no data for are left out.

    Args:
        item: the record and its requests.
        answers: the engine's answers.
        text: the decoded greedy answer, if there is one.
    """
    known = {role: request for role, request in item.likely.items() if request in answers}
    means = {role: answers.likelihood(request).mean for role, request in known.items()}
    hits = answers.likelihood(known["answer"]).hit.tolist() if "answer" in known else []
    return _values(item, means, hits, text)


def _wanted(made: Sequence[Item]) -> set[str]:
    """The metrics that need how likely answers are, as far as the records allow them."""
    told = (_values(item, dict.fromkeys(item.likely, 1.0), [True, True], None) for item in made)
    return {metric for found in told for metric in found}


def _values(
    item: Item, means: Mapping[str, float], hits: Sequence[bool], text: str | None
) -> dict[str, float]:
    """The figures of one record from the mean NLLs by role and the hits of the right answer."""
    right = means.get("answer")
    answered = Answered(
        right=right,
        hits=hits[: len(hits) - item.tokens.closed] or None,
        reworded=means.get("paraphrased_answer", right),
        wrong=[means[role] for role in means if role.startswith("perturbed_")] or None,
        paraphrased=means.get("paraphrased"),
        expected=item.record.answer,
        said=text,
    )
    return values(OF_RECORDS, answered)


def written(item: Item, answers: Answers, encoder: Encoder) -> Written | None:
    """The model's own answer, decoded without special tokens; None where none was asked for."""
    if item.greedy is None:
        return None
    assert encoder.tokenizer is not None
    record = item.record
    return written_text(
        encoder.tokenizer, answers, item.greedy, record.place, record.prompt, record.answer
    )
