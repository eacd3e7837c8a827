"""The short form of ``bench.fuzz``: a part of its mutants, and what the fuzzer itself promises."""

from __future__ import annotations

import json
import time
from collections import Counter
from random import Random

import pytest
from bench.fuzz import chunks, fuzz, record
from bench.fuzzing import running
from bench.fuzzing.examples import make_examples
from bench.fuzzing.kinds import KINDS
from bench.fuzzing.mutations import VALUES, json_text, mutate_json, mutate_tensors, mutate_value
from bench.fuzzing.running import GOOD, Found, generator, run_mutants

from wagle.system.errors import WagleError

SLOW = {
    "recipe": 150,
    "run": 100,
    "result": 300,
    "pack": 200,
}  # mutants of the kinds that take longest
MANY = 1000


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    home = tmp_path_factory.mktemp("examples")
    make_examples(home, whole=False)
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_every_mutant_is_opened_or_refused_in_one_line(examples, kind):
    found = run_mutants(examples, kind, 0, range(SLOW.get(kind, MANY)))
    assert found.failures == []
    assert set(found.counts) == set(GOOD)
    assert sum(found.counts.values()) == SLOW.get(kind, MANY)
    assert min(found.counts.values()) > 10  # it reaches what lies behind the first check


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_is_a_function_of_seed_kind_and_number(examples, tmp_path, kind):
    def files(name, number):
        work = tmp_path / name
        work.mkdir()
        subject = KINDS[kind](examples, work)
        for earlier in (number - 2, number - 1, number)[0 if name == "b" else 2 :]:
            subject.write(generator(3, kind, earlier))
        if kind == "pack":
            return subject.mutant
        return {p.relative_to(work): p.read_bytes() for p in work.rglob("*") if p.is_file()}

    for number in range(10, 16):
        one, other = files("a", number), files("b", number)
        assert one == other
        for name in "ab":
            (tmp_path / name).rename(tmp_path / f"{name}{number}")


def test_no_mutation_changes_the_values_that_others_are_given():
    before = json.dumps(VALUES)
    for number in range(2000):
        mutate_value(Random(number), {"a": [1, {"b": []}], "c": {"d": "x"}})
    assert json.dumps(VALUES) == before


def test_what_no_json_value_can_be_is_written():
    text = json_text(["@nan@", "@half@", "@digits@"])
    assert text == f'[NaN, "\\ud800", {"9" * 5000}]'
    assert any(b"NaN" in mutate_json(Random(n), '{"a": [1, 2]}') for n in range(500))


class Subject:
    """Uses mutants in a way that is told."""

    def __init__(self, *_):
        pass

    def write(self, rng):
        self.number = rng.random()
        return "made"

    def use(self):
        raise NotImplementedError


def run(monkeypatch, use, numbers=range(6), **limits):
    for name, value in limits.items():
        monkeypatch.setattr(running, name, value)
    monkeypatch.setitem(KINDS, "odd", type("Odd", (Subject,), {"use": use}))
    return run_mutants(None, "odd", 0, numbers)


def lone(number):
    """Whether this is the third mutant, by the first draw of its generator."""
    return number == generator(0, "odd", 2).random()


def test_a_traceback_several_lines_and_a_long_time_are_told_with_their_number(monkeypatch):
    def traceback(self):
        if lone(self.number):
            raise KeyError("x")

    def lines(self):
        raise WagleError("one\ntwo" if lone(self.number) else "one")

    def late(self):
        if lone(self.number):
            time.sleep(30)

    def busy(self):
        while lone(self.number):
            pass

    ends = {traceback: "traceback KeyError", lines: "not one line", late: "too long"}
    for use, end in {**ends, busy: "too long"}.items():
        found = run(monkeypatch, use, SECONDS=0.2)
        assert found.counts[end] == 1
        assert sum(found.counts.values()) == 6
        ((name, said),) = found.failures
        assert name == "odd:2"
        assert said.startswith(end)


def test_memory_beyond_the_limit_is_told_and_the_rest_still_run(monkeypatch):
    def large(self):
        if lone(self.number):
            self.kept = b"x" * (200 << 20)
            del self.kept

    found = run(monkeypatch, large, BYTES=100 << 20)
    assert found.counts == Counter({"ok": 5, "too large": 1})
    assert found.failures[0][0] == "odd:2"
    assert found.largest[0] > 150 << 20


def test_a_worker_that_dies_or_hangs_costs_one_mutant(monkeypatch):
    def dies(self):
        if lone(self.number):
            running.os._exit(9)

    def hangs(self):
        if lone(self.number):
            running.signal.setitimer(running.signal.ITIMER_REAL, 0)
            time.sleep(30)

    for use, end in ((dies, "died"), (hangs, "hangs")):
        found = run(monkeypatch, use, _HANGS=1.0)
        assert found.counts == Counter({"ok": 5, end: 1})
        assert [name for name, _ in found.failures] == ["odd:2"]


def test_a_run_that_was_broken_off_goes_on_where_it_was(examples, tmp_path, monkeypatch):
    out = tmp_path / "fuzz.part.json"
    whole = fuzz(examples, ["records-csv", "ledger"], 60, 0, workers=1, out=out)
    told = json.loads(out.read_text())
    del told["done"]["ledger:0:60"]  # as if it had ended before
    out.write_text(json.dumps(told))
    asked = []
    monkeypatch.setattr(
        "bench.fuzz.run_mutants", lambda *given: asked.append(given[1]) or run_mutants(*given)
    )
    again = fuzz(examples, ["records-csv", "ledger"], 60, 0, workers=1, out=out)
    assert asked == ["ledger"]
    assert {k: f.counts for k, f in again.items()} == {k: f.counts for k, f in whole.items()}
    assert record(again, 0, {})["mutants"] == 120


def test_the_numbers_of_all_kinds_are_covered_once():
    found = [(kind, n) for kind, numbers in chunks(["a", "b"], 4100) for n in numbers]
    assert sorted(found) == [(kind, n) for kind in "ab" for n in range(4100)]


def test_what_several_parts_found_is_put_together():
    found = Found(Counter(ok=1), [["a:1", "x"]], (0.5, 1), (3, 1))
    found.add(Found(Counter(ok=2, refused=1), [], (0.7, 4), (2, 4)))
    assert found == Found(Counter(ok=3, refused=1), [["a:1", "x"]], (0.7, 4), (3, 1))


def test_a_tensor_file_is_changed_in_every_part(examples):
    data = (examples / "run" / "mask.safetensors").read_bytes()
    made = [mutate_tensors(Random(number), data) for number in range(60)]
    size = int.from_bytes(data[:8], "little")
    assert len(set(made)) > 50
    rest = data[8 + size :]
    assert any(one.endswith(rest) and one[: 8 + size] != data[: 8 + size] for one in made)
    assert any(one[: 8 + size] == data[: 8 + size] for one in made)
