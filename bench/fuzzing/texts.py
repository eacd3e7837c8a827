"""Text files: recipes, records, results, attacks, ledgers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.fuzzing.kind import Kind
from bench.fuzzing.mutations import mutate_bytes, mutate_json, mutate_lines, mutate_yaml
from bench.fuzzing.pages import without_charts


class _File(Kind):
    """A mutant that is one file."""

    names: tuple[str, ...]  # the examples
    mutate: Callable[[Random, str], bytes] = staticmethod(mutate_json)

    def __init__(self, examples: Path, work: Path) -> None:
        self.texts = {name: (examples / name).read_text() for name in self.names}
        self.work = work

    def write(self, rng: Random) -> str:
        name = rng.choice(self.names)
        self.path = self.work / f"mutant{Path(name).suffix}"
        self.path.write_bytes(self.mutate(rng, self.texts[name]))
        return name


class RecipeFile(_File):
    names = ("recipe.yaml", "recipe.yaml", "whole.yaml", "run/recipe.yaml")
    mutate = staticmethod(mutate_yaml)

    def use(self) -> None:
        from wagle.recipe.reading import dump_recipe, load_recipe

        dump_recipe(load_recipe(self.path))


class _Records(_File):
    def use(self) -> None:
        from wagle.data.reading import read_records

        read_records(self.path, name="forget")


class RecordsJson(_Records):
    names = ("records/x.json",)


class RecordsLines(_Records):
    names = ("records/x.jsonl",)
    mutate = staticmethod(mutate_lines)


class RecordsTable(_Records):
    names = ("records/x.csv",)
    mutate = staticmethod(lambda rng, text: mutate_bytes(rng, text.encode()))


class ResultFile(_File):
    names = (
        *("run/evaluation/after.json", "run/evaluation/before.json"),
        *("logs/tofu.json", "logs/open_unlearning.json", "logs/muse.json"),
    )

    def use(self) -> None:
        from wagle.evaluation.peers.naming import FORMS
        from wagle.evaluation.peers.reading import read_result
        from wagle.report.text.evaluations import evaluation_table

        found = read_result(self.path, corpus="news")
        str(found)
        found.to_json()
        evaluation_table(found, everything=True)
        for form in FORMS.values():
            form(found.figures)


class AttackFile(_File):
    names = ("relearning.json", "sampling.json", "probe.json")

    def use(self) -> None:
        from wagle.report.attack_findings import strongest
        from wagle.report.files import read_attack
        from wagle.report.html.sections import attacks

        without_charts()
        found = read_attack(self.path)
        strongest(found)
        attacks.attack_part("attack", found, str)


class LedgerFile(_File):
    names = ("run/ledger.json",)

    def __init__(self, examples: Path, work: Path) -> None:
        super().__init__(examples, work)
        entry = json.loads(self.texts[self.names[0]])[0]
        receipt = {"schema": "wagle-purge/1", "when": "now", "wagle": "1", "deleted": []}
        receipt["deleted"] = [{"path": "base/", "files": 1, "bytes": 5, "digest": None}]
        later = {**entry, "name": "later", "after": "run", "base": entry["result"]}
        several = [entry, {**later, "earlier": {"mode": "evaluate", "n": 2}, "mask": None}, receipt]
        self.texts[self.names[0]] = json.dumps(several)

    def use(self) -> None:
        from wagle.run.ledger import ledger_json, ledger_table, read_ledger, read_receipts

        self.path = self.path.rename(self.work / "ledger.json")
        found = read_ledger(self.work, broken=True)
        ledger_table(found, read_receipts(self.work))
        json.dumps(ledger_json(found))
        read_ledger(self.work)
