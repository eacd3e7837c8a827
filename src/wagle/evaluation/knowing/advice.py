"""What to do about records that a model knows: the cheapest right way first, with its cost.

A cost is an estimate from the forward passes that the question itself took: training a token costs
about three times a forward pass.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wagle.evaluation.knowing.asking import Speed
from wagle.evaluation.knowing.deciding import BASE_KNOWS, KNOWS, UNKNOWN

TRAINING = 3  # forward passes that a forward and a backward pass cost
EPOCHS = 5  # the default of ``epochs``
_UNLEARN = 1 + 1  # a retain record beside every forget record
_GRADIENTS = 1 + 4  # the default of attribution: four retain records per forget record
_EVALUATIONS = 3 * 4  # before, after and reference; answers, paraphrases, wrong answers, texts


@dataclass(frozen=True)
class Case:
    """What advice depends on.

    Attributes:
        model: the path of the model that was checked.
        base: the path of its base; None: not given.
        adapter: the path of its adapter; None: it has none.
        forget: the records, as given on the command line.
        records: everything that the adapter was taught, as given; None: unknown.
        count: how many records there are to forget.
        tokens: how many tokens these have.
        taught: how many of ``records`` would remain; None: unknown.
        weights: how many weights the model has.
        bytes: the size of the model on disk.
        adapter_bytes: the size of the adapter on disk.
        speed: of the forward passes.
    """

    model: str
    base: str | None
    adapter: str | None
    forget: str
    records: str | None
    count: int
    tokens: int
    taught: int | None
    weights: int
    bytes: int
    adapter_bytes: int
    speed: Speed

    def seconds(self, tokens: float) -> float:
        """How long a forward pass over some tokens takes."""
        return tokens * self.speed.seconds / max(self.speed.tokens, 1)


@dataclass(frozen=True)
class Remedy:
    """One thing to do.

    Attributes:
        what: ``nothing``, ``ask again``, ``retrain the adapter`` or ``unlearn``.
        why: what speaks for it, and what it does not do.
        commands: what to type; empty if there is nothing to.
        recipe: the recipe that a command refers to, as YAML; None: none does.
        seconds: how long it takes on this machine.
        bytes: how much disk it needs.
        per: what the time is for, if not for the whole.
    """

    what: str
    why: str
    commands: tuple[str, ...] = ()
    recipe: str | None = None
    seconds: float | None = None
    bytes: int | None = None
    per: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The remedy as JSON."""
        return {**vars(self), "commands": list(self.commands)}


def advise(verdict: str, base: str | None, case: Case) -> list[Remedy]:
    """What to do, the cheapest right way first.

    Args:
        verdict: the word for the model.
        base: the word for its base; None: there is none.
        case: what the commands and costs depend on.
    """
    if verdict == UNKNOWN:
        return [Remedy("nothing", "There is nothing to unlearn: the model does not know them.")]
    if verdict not in (KNOWS, BASE_KNOWS):
        return [_again(case)]
    if case.adapter is None or verdict == BASE_KNOWS:
        kept = verdict == BASE_KNOWS and case.adapter is not None
        more = " An adapter retrained without them would leave what the base knows." if kept else ""
        return [_unlearn(case, base, more)]
    if base == UNKNOWN:
        return [_retrain(case, "It is exact: the base does not know them."), _unlearn(case, base)]
    doubt = "It is exact only if the base does not know them, which could not be told."
    return [_unlearn(case, base), _retrain(case, doubt)]


def _again(case: Case) -> Remedy:
    more = [] if case.base is not None or case.adapter is not None else ["its base (--base)"]
    asks = ["more records", "records that name their subject", "paraphrased questions", *more]
    return Remedy(
        "ask again",
        f"What was asked does not settle it; give {', '.join(asks[:-1])} or {asks[-1]}.",
    )


def _retrain(case: Case, why: str) -> Remedy:
    command = ["wagle", "retrain-adapter", case.base or case.model, "--adapter", str(case.adapter)]
    new = f"{str(case.adapter).rstrip('/')}-retrained"
    command += ["--records", case.records or "RECORDS", "--forget", case.forget, "-o", new]
    count = 1000 if case.taught is None else case.taught
    tokens = EPOCHS * count * case.tokens / max(case.count, 1)
    return Remedy(
        "retrain the adapter",
        f"Train it again without these records. {why}",
        (shlex.join(command),),
        seconds=TRAINING * case.seconds(tokens),
        bytes=case.adapter_bytes,
        per=f"{count:,} records, {EPOCHS} epochs",
    )


def _unlearn(case: Case, base: str | None, more: str = "") -> Remedy:
    recipe = [f"forget: {case.forget}", "retain: RETAIN"]
    merged = case.adapter is not None and case.base is None
    path = f"{{path: {case.model}, adapter: {case.adapter}}}" if merged else case.model
    if base == UNKNOWN:  # it never learned them
        recipe.append(f"reference: {case.base or case.model}")
    trained = TRAINING * (EPOCHS * _UNLEARN + _GRADIENTS)
    return Remedy(
        "unlearn",
        "Move the few weights that matter until the model no longer knows them, and prove it; "
        f"RETAIN names records of the same kind that must stay.{more}",
        ("wagle run forget.yaml",),
        "\n".join(["name: forget", f"model: {path}", *recipe]) + "\n",
        seconds=case.seconds((trained + _EVALUATIONS) * case.tokens),
        bytes=2 * 4 * case.weights + 2 * case.bytes,
        per=f"{case.count:,} records, {EPOCHS} epochs",
    )


def reasons(
    verdict: str, words: dict[str, str], shown: Sequence[str], alone: int, count: int
) -> tuple[str, ...]:
    """The sentences that explain a verdict.

    Args:
        verdict: the word.
        words: the word for each model, by role.
        shown: a sentence about the model's figures each.
        alone: how many records have no twin.
        count: how many records there are.
    """
    found = list(shown)
    base = words.get("base")
    if base == KNOWS:
        found.append("The base knows them too: they were not learned from what was taught to it.")
    elif base is not None and verdict == KNOWS:
        doubt = "does not know them" if base == UNKNOWN else "may or may not know them"
        found.append(f"The base {doubt}, and the model clearly knows more than its base.")
    elif base is not None and words["model"] == KNOWS:
        found.append("But it hardly knows more than its base, which does not clearly know them.")
    if alone:
        found.append(
            f"{alone} of {count} records name nothing that could be replaced, so they have no twin "
            "and do not count."
        )
    return tuple(found)
