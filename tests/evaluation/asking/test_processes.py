"""Evaluation on several processes gives the figures of one, and asks nothing twice."""

from __future__ import annotations

import pytest

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.processes import on
from wagle.evaluation.asking import engine
from wagle.system.processes import group


def measure(cache):
    found = wagle.evaluate(
        make_model("llama-tied"), make_tokenizer(), forget=RECORDS, retain=OTHERS, cache=cache
    )
    return {
        (name, metric): figure.value
        for name, figures in found.figures.items()
        for metric, figure in figures.items()
    }


def _measure(cache):
    asked = []
    ask = engine._ask

    def counted(model, requests, *args):
        asked.append(len(requests))
        return ask(model, requests, *args)

    engine._ask = counted
    return measure(cache), asked


@pytest.mark.parametrize("world", [2, 3])
def test_the_figures_are_those_of_one_process(tmp_path, world):
    alone = measure(tmp_path / "alone")
    shared = tmp_path / "shared"
    results = on(world, _measure, shared)
    for figures, _ in results:
        assert figures.keys() == alone.keys()
        for key, value in alone.items():
            assert figures[key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    counts = [sum(asked) for _, asked in results]
    assert min(counts) > 0
    assert max(counts) < 2 * sum(counts) / world  # nobody does most of it
    again, nothing = zip(*on(world, _measure, shared), strict=True)
    assert all(sum(asked) == 0 for asked in nothing)  # all answers were joined in one cache
    assert again[0] == pytest.approx(alone, rel=1e-6, abs=1e-6)


def test_without_a_cache_too():
    alone = measure(None)
    for figures in on(2, measure, None):
        assert figures == pytest.approx(alone, rel=1e-6, abs=1e-6)


def test_questions_are_dealt_out_once_each_and_their_parts_stay_together():
    from wagle.evaluation.asking.requests import Greedy, Likelihood

    asked = [Likelihood((i, 5), (7,) * (i % 9 + 1)) for i in range(40)]
    asked += [Greedy((i, 5), 4) for i in range(40)]
    parts = on(3, _deal, asked)
    assert sorted(repr(request) for part in parts for request in part) == sorted(map(repr, asked))
    homes = [{request.context for request in part} for part in parts]
    assert not homes[0] & homes[1] | homes[1] & homes[2] | homes[0] & homes[2]


def _deal(asked):
    assert group.world() == 3
    return engine._own_part(asked)
