"""A model whose blocks are on disk answers as the whole one, and is read once for all requests."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from tests.conftest import MORE_FAMILIES, make_model
from tests.evaluation.asking.test_engine import ids, likelihoods, lively
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import (
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    NormAnswer,
    Sample,
)
from wagle.evaluation.asking.streamed import asking
from wagle.evaluation.asking.streamed.room import Room
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.system.errors import WagleError

STOPS = [2, *range(10, 40)]  # many, so that texts end at different steps


def streamed(model, folder, dtype="float32"):
    model.save_pretrained(folder)
    opened = open_streamed(folder, dtype)
    return opened, stream_of(opened)


def block_bytes(model):
    return sum(p.nbytes for name, p in model.named_parameters() if ".0." in name or ".1." in name)


def read_only(seed=0):
    """Requests that one pass through the model answers; some with moments, some partly scored."""
    rng = random.Random(seed)
    asked = likelihoods(seed)
    asked += [replace(asked[0], moments=True), Likelihood(ids(rng, 9), ids(rng, 3), moments=True)]
    asked.append(Likelihood(ids(rng, 4), ids(rng, 3), (True, False, True)))
    return asked + [HiddenStates(ids(rng, n), (n - 1, 0)) for n in (3, 9, 9, 20)]


def norms(seed=0):
    rng = random.Random(seed)
    asked = [GradientNorm(ids(rng, n), ids(rng, 5)) for n in (1, 6, 6)]
    return [*asked, GradientNorm(ids(rng, 3), ids(rng, 3), (True, False, True))]


def texts(seed=0):
    rng = random.Random(seed)
    asked = [Greedy(ids(rng, n), 3 + n) for n in (1, 2, 7, 22)]
    return [*asked, *(Sample(ids(rng, n), 12, 1.0, 0.9, f"0/{n}") for n in (1, 5, 22))]


def close(one, other):
    if isinstance(one, NormAnswer):
        assert other.whole == pytest.approx(one.whole, rel=2e-6)
        assert other.mean == pytest.approx(one.mean, rel=2e-6)
        return
    for name, mine in vars(one).items():
        theirs = getattr(other, name)
        if isinstance(mine, torch.Tensor) and mine.is_floating_point():
            large = float(mine.abs().max()) if name == "states" else 1.0
            torch.testing.assert_close(theirs, mine, rtol=2e-6, atol=1e-6 * max(1.0, large))
        else:
            assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def same(whole, other, requests):
    for request in requests:
        close(whole[request], other[request])


@pytest.mark.parametrize(
    ("family", "budget"),
    [*((family, 60) for family in sorted(MORE_FAMILIES)), ("gemma3", 1), ("llama-tied", None)],
)
def test_everything_but_texts_takes_one_reading_there_and_one_back(family, budget, tmp_path):
    model = make_model(family)
    opened, stream = streamed(model, tmp_path)
    requests = [*read_only(), *norms()]
    whole = answer_requests(model, requests, stop_ids=STOPS)
    found = answer_requests(opened, requests, stop_ids=STOPS, batch_tokens=budget)
    same(whole, found, requests)
    assert stream.sweeps == 1
    assert stream.read <= 2 * block_bytes(model)
    assert all(p.grad is None and p.requires_grad for p in opened.parameters())


def test_without_norms_every_block_is_read_once(model, tmp_path):
    opened, stream = streamed(model, tmp_path)
    answer_requests(opened, read_only(), stop_ids=STOPS, batch_tokens=30)
    assert stream.sweeps == 1
    assert stream.read == block_bytes(model)


@pytest.mark.parametrize("memory", [1 << 30, 0])
@pytest.mark.parametrize("family", sorted(MORE_FAMILIES))
def test_all_texts_together_take_one_reading_a_token(family, memory, tmp_path, monkeypatch):
    own = Room.of
    monkeypatch.setattr(Room, "of", lambda model: replace(own(model), memory=memory, beside=70))
    model = lively(family)
    opened, stream = streamed(model, tmp_path)
    whole = answer_requests(model, texts(), stop_ids=STOPS)
    found = answer_requests(opened, texts(), stop_ids=STOPS, batch_tokens=50)
    same(whole, found, texts())
    longest = max(len(r.ids) + r.finished for r in whole.found.values())
    assert stream.sweeps == longest
    assert len({len(r.ids) for r in whole.found.values()}) > 2  # they ended at different steps


@pytest.mark.parametrize("family", ["llama-tied", "gemma3"])
def test_the_beginnings_that_likelihoods_show_are_not_written_again(family, tmp_path):
    model = lively(family)
    opened, stream = streamed(model, tmp_path)
    known = answer_requests(model, [Greedy((5, 6, 7), 8)], stop_ids=[2]).found.popitem()[1].ids
    asked = [Likelihood((5, 6, 7), known[:6]), Greedy((5, 6, 7), 8), Greedy((5, 6, 7), 4)]
    found = answer_requests(opened, asked, stop_ids=[2])
    assert found.text(asked[1]).ids == known
    assert found.text(asked[2]).ids == known[:4]
    assert stream.sweeps == 1 + 2  # the likelihood; then the two tokens that it does not show


@pytest.mark.parametrize("family", ["llama-tied", "qwen2"])
def test_a_bfloat16_folder_is_asked_in_either_precision(family, tmp_path):
    model = make_model(family).to(torch.bfloat16)
    opened, _ = streamed(model, tmp_path)
    requests = [*read_only(), *norms(), *texts()]
    whole = answer_requests(model.float(), requests, stop_ids=STOPS)
    same(whole, answer_requests(opened, requests, stop_ids=STOPS), requests)
    narrow = open_streamed(tmp_path, "bfloat16")
    plain = answer_requests(model.bfloat16(), read_only(), stop_ids=STOPS)
    found = answer_requests(narrow, read_only(), stop_ids=STOPS)
    for request in read_only():
        if isinstance(request, Likelihood):
            mine, theirs = found[request].token_nll, plain[request].token_nll
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0.05)  # 2^-8 of logits below 4


def test_autocast_holds_in_step(model, tmp_path):
    opened, _ = streamed(model, tmp_path)
    asked = [r for r in read_only() if isinstance(r, Likelihood)]
    whole = answer_requests(model, asked, stop_ids=STOPS, dtype="bfloat16")
    found = answer_requests(opened, asked, stop_ids=STOPS, dtype="bfloat16", batch_tokens=30)
    plain = answer_requests(model, asked, stop_ids=STOPS)
    gaps = [abs(found[r].mean - plain[r].mean) for r in asked]
    assert max(gaps) > 1e-5
    for request in asked:
        assert found[request].mean == pytest.approx(whole[request].mean, abs=2e-2)


def test_what_does_not_fit_beside_one_another_takes_more_readings(model, tmp_path, monkeypatch):
    own = Room.of
    small = {"waiting": 60, "traced": 12, "beside": 40, "written": 80}
    monkeypatch.setattr(Room, "of", lambda model: replace(own(model), **small))
    opened, stream = streamed(model, tmp_path)
    requests = [*read_only(), *norms(), *texts()]
    whole = answer_requests(model, requests, stop_ids=STOPS)
    same(whole, answer_requests(opened, requests, stop_ids=STOPS, batch_tokens=30), requests)
    longest = max(len(whole[r].ids) + whole[r].finished for r in texts())
    assert stream.sweeps > 1 + longest + 5


def test_a_kill_costs_only_what_is_under_way(tmp_path, monkeypatch):
    opened, stream = streamed(lively("llama-tied"), tmp_path / "model")
    requests = [*read_only(), *texts()]

    def cache():
        return AnswerCache(tmp_path / "answers", "f" * 64, "torch.float32", "float32", STOPS)

    serve, sweeps = type(stream).serve, []

    def dies(self, block, visits, *, more):
        sweeps.append(block)
        if sweeps.count(0) == 9:
            raise KeyboardInterrupt
        serve(self, block, visits, more=more)

    monkeypatch.setattr(type(stream), "serve", dies)
    with pytest.raises(KeyboardInterrupt):
        answer_requests(opened, requests, stop_ids=STOPS, cache=cache())
    kept = {r for r in requests if cache().get(r) is not None}
    assert kept > {r for r in requests if isinstance(r, Likelihood)}  # and texts that had ended
    assert kept < set(requests)
    whole = answer_requests(lively("llama-tied"), requests, stop_ids=STOPS)
    asked = []
    ask = asking.ask_in_step
    monkeypatch.setattr(
        "wagle.evaluation.asking.engine.ask_in_step",
        lambda model, some, *rest: [asked.extend(some), ask(model, some, *rest)],
    )
    same(whole, answer_requests(opened, requests, stop_ids=STOPS, cache=cache()), requests)
    assert not kept & set(asked)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_when_memory_runs_out_half_as_much_is_asked_and_nothing_twice(
    model, tmp_path, monkeypatch, caplog, at
):
    opened, stream = streamed(model, tmp_path)
    requests = [*read_only(), *norms(), *texts()]
    whole = answer_requests(model, requests, stop_ids=STOPS)
    serve, sweeps, told = type(stream).serve, [], []

    def short(self, block, visits, *, more):
        sweeps.append(block)
        if len(sweeps) == at:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        serve(self, block, visits, more=more)

    monkeypatch.setattr(type(stream), "serve", short)
    own = asking.ask_in_step

    def listening(model, requests, known, stops, budget, keep):
        def both(found):
            told.extend(request for request, _ in found)
            keep(found)

        own(model, requests, known, stops, budget, both)

    monkeypatch.setattr("wagle.evaluation.asking.engine.ask_in_step", listening)
    same(whole, answer_requests(opened, requests, stop_ids=STOPS), requests)
    assert sorted(map(repr, told)) == sorted(map(repr, dict.fromkeys(requests)))
    assert "memory ran out; continuing with half as much at a time" in caplog.text


def test_norms_that_were_under_way_when_memory_ran_out_are_not_in_the_next(
    model, tmp_path, monkeypatch
):
    opened, stream = streamed(model, tmp_path)
    whole = answer_requests(model, norms(), stop_ids=STOPS)
    backward, tries = type(stream).backward, []

    def short(self, *args):
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        backward(self, *args)

    monkeypatch.setattr(type(stream), "backward", short)
    same(whole, answer_requests(opened, norms(), stop_ids=STOPS), norms())


def test_without_memory_for_one_request_it_says_so(model, tmp_path, monkeypatch):
    opened, stream = streamed(model, tmp_path)

    def short(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(type(stream), "serve", short)
    with pytest.raises(WagleError, match="memory runs out with one request at a time; shorten the"):
        answer_requests(opened, read_only(), stop_ids=STOPS, batch_tokens=8)


def test_progress_is_shown_block_by_block_and_ends_at_the_number_of_requests(
    model, tmp_path, monkeypatch
):
    bars = {}

    class Told:
        def __init__(self, what, total):
            self.what, self.total, self.steps, self.figures = what, total, [], {}
            bars[what] = self

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def advance(self, steps=1, **figures):
            self.steps.append(steps)
            self.figures |= figures

    monkeypatch.setattr(asking, "Bar", Told)
    monkeypatch.setattr("wagle.evaluation.asking.streamed.texts.Bar", Told)
    opened, _ = streamed(model, tmp_path)
    answer_requests(opened, [*read_only(), *texts()], stop_ids=STOPS, batch_tokens=40)
    assert bars["requests"].total == sum(bars["requests"].steps) == len(set(read_only()))
    assert len([step for step in bars["requests"].steps if step]) > 5
    assert bars["texts"].total == sum(bars["texts"].steps) == len(texts())
    assert bars["texts"].figures["tokens/s"] > 0
