"""Answers on disk: what is kept, what a kill leaves, who shares a folder."""

import multiprocessing
import os
import time

import pytest
import torch

from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.requests import (
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    LikelihoodAnswer,
    NormAnswer,
    Sample,
    StatesAnswer,
    TextAnswer,
)
from wagle.system.errors import WagleError


def opened(folder, *, model="f1", dtype="torch.float32", precision="float32", stops=(2, 5)):
    return AnswerCache(folder, model, dtype, precision, stops)


def likely(*nlls, moments=False):
    nll = torch.tensor(nlls, dtype=torch.float64)
    return LikelihoodAnswer(nll, nll < 1, torch.stack([-nll, nll / 3], dim=1) if moments else None)


def fill(folder, answers, **of):
    cache = opened(folder, **of)
    for request, reply in answers.items():
        cache.put(request, reply)
    cache.flush()
    return cache


ONE, TWO = Likelihood((1, 2), (3, 4)), Likelihood((1,), (2, 3, 4))


def test_likelihoods_come_back_bit_for_bit(tmp_path):
    fill(tmp_path, {ONE: likely(0.1, 1 / 3, moments=True), TWO: likely(103.97, 5e-324, 0.0)})
    found = opened(tmp_path).get(ONE)
    assert found.token_nll.tolist() == [0.1, 1 / 3]
    assert found.token_nll.dtype == torch.float64
    assert found.hit.tolist() == [True, True]
    assert found.hit.dtype == torch.bool
    assert found.moments is None  # not asked for
    other = opened(tmp_path).get(TWO)
    assert other.token_nll.tolist() == [103.97, 5e-324, 0.0]
    assert other.hit.tolist() == [False, True, True]


def test_texts_and_norms_come_back(tmp_path):
    answers = {
        Greedy((1, 2), 8): TextAnswer((7, 100_000), False),
        Greedy((1, 2), 9): TextAnswer((), True),
        Sample((1, 2), 8, 0.8, 0.95, "0/forget[3]/17"): TextAnswer((9,), True),
        GradientNorm((1,), (2,)): NormAnswer(1.5, 1e-30),
    }
    fill(tmp_path, answers)
    cache = opened(tmp_path)
    assert {request: cache.get(request) for request in answers} == answers


def test_moments_answer_a_request_without_them_but_not_the_other_way_round(tmp_path):
    with_moments = Likelihood(ONE.context, ONE.continuation, moments=True)
    cache = fill(tmp_path, {ONE: likely(0.5, 2.0)})
    assert cache.get(with_moments) is None
    cache.put(with_moments, likely(0.5, 2.0, moments=True))
    cache.put(ONE, likely(0.5, 2.0))
    cache.flush()
    found = opened(tmp_path)
    assert found.get(with_moments).moments.tolist() == [[-0.5, 0.5 / 3], [-2.0, 2 / 3]]
    assert found.get(ONE).moments is None


def test_every_field_of_a_request_makes_another_key(tmp_path):
    drawn = [(34, 1.0, 0.9, "a"), (34, 1.0, 0.9, "b"), (34, 0.9, 0.9, "a"), (34, 1.0, 1.0, "a")]
    requests = [
        ONE,
        TWO,
        Likelihood((1, 2), (3, 4), (True, False)),
        Likelihood((1, 2), (3, 4), (False, True)),
        GradientNorm((1, 2), (3, 4)),
        Greedy((1, 2), 34),
        Greedy((1,), 34),
        *(Sample((1, 2), *rest) for rest in drawn),
    ]
    answers = {request: TextAnswer((number,), True) for number, request in enumerate(requests)}
    answers |= {ONE: likely(1.0, 2.0), TWO: likely(1.0, 2.0, 3.0)}
    answers |= {requests[2]: likely(1.0), requests[3]: likely(2.0)}
    answers |= {requests[4]: NormAnswer(1.0, 2.0)}
    fill(tmp_path, answers)
    cache = opened(tmp_path)
    assert len(cache) == len(requests)
    for request in (*requests[:4], Likelihood((1, 2), (3, 4), (True, True))):
        same = ONE if request.scored == (True, True) else request
        assert cache.get(request).token_nll.tolist() == answers[same].token_nll.tolist()
    assert {r: cache.get(r) for r in requests[4:]} == {r: answers[r] for r in requests[4:]}


@pytest.mark.parametrize("other", [{"model": "f2"}, {"precision": "bfloat16"}, {"stops": (2,)}])
def test_models_precisions_and_stop_ids_share_a_folder_and_no_answers(tmp_path, other):
    fill(tmp_path, {ONE: likely(0.5, 2.0)})
    cache = opened(tmp_path, **other)
    assert cache.get(ONE) is None
    cache.put(ONE, likely(7.0, 7.0))
    cache.flush()
    assert opened(tmp_path).get(ONE).token_nll.tolist() == [0.5, 2.0]
    assert opened(tmp_path, **other).get(ONE).token_nll.tolist() == [7.0, 7.0]
    assert opened(tmp_path, stops=(5, 2, 2)).get(ONE) is not None  # a set, in any order


def test_hidden_states_are_not_kept(tmp_path):
    request = HiddenStates((1, 2), (0,))
    cache = fill(tmp_path, {request: StatesAnswer(torch.zeros(1, 1, 2))})
    assert cache.get(request) is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_a_flush(tmp_path):
    cache = opened(tmp_path)
    cache.put(ONE, likely(1.0, 2.0))
    assert cache.get(ONE) is not None
    assert opened(tmp_path).get(ONE) is None


def test_folder_and_file_are_private(tmp_path):
    old = os.umask(0)
    try:
        cache = fill(tmp_path / "answers", {ONE: likely(1.0, 2.0)})
    finally:
        os.umask(old)
    assert (tmp_path / "answers").stat().st_mode & 0o777 == 0o700
    assert cache.path.stat().st_mode & 0o777 == 0o600


def test_a_write_cut_off_anywhere_loses_that_record_alone_and_is_mended(tmp_path):
    path = fill(tmp_path, {ONE: likely(0.5, 2.0)}).path
    first = path.read_bytes()
    fill(tmp_path, {TWO: likely(1.0, 2.0, 3.0)})
    whole = path.read_bytes()
    for cut in range(len(first), len(whole)):
        path.write_bytes(whole[:cut])
        cache = opened(tmp_path)
        assert cache.get(ONE).token_nll.tolist() == [0.5, 2.0]
        assert cache.get(TWO) is None
        cache.put(TWO, likely(1.0, 2.0, 3.0))
        cache.flush()
        assert path.read_bytes() == whole
    for cut in range(len(first)):
        path.write_bytes(whole[:cut])
        assert fill(tmp_path, {ONE: likely(0.5, 2.0)}).get(TWO) is None
        assert path.read_bytes() == first


def test_a_damaged_last_record_is_dropped(tmp_path):
    path = fill(tmp_path, {ONE: likely(0.5, 2.0)}).path
    kept = path.stat().st_size
    fill(tmp_path, {TWO: likely(1.0, 2.0, 3.0)})
    content = bytearray(path.read_bytes())
    content[kept + 50] ^= 1
    path.write_bytes(content)
    cache = opened(tmp_path)
    assert cache.get(ONE) is not None
    assert cache.get(TWO) is None


def test_a_file_of_another_format_is_named(tmp_path):
    path = fill(tmp_path, {ONE: likely(0.5, 2.0)}).path
    path.write_bytes(b"wagle-answers/9\n" + path.read_bytes()[16:])
    with pytest.raises(WagleError, match=r"answers is not an answer file .*wagle-answers/1"):
        opened(tmp_path)


def test_a_file_that_was_removed_begins_again(tmp_path):
    cache = fill(tmp_path, {ONE: likely(0.5, 2.0)})
    cache.path.unlink()
    cache.put(TWO, likely(1.0, 2.0, 3.0))
    cache.flush()
    assert opened(tmp_path).get(TWO) is not None


def test_a_folder_that_cannot_be_written_is_a_one_line_error(tmp_path):
    cache = opened(tmp_path)
    cache.path.mkdir()
    cache.put(ONE, likely(0.5, 2.0))
    with pytest.raises(WagleError, match=r"cannot store answers in .*: Is a directory; "):
        cache.flush()


def test_two_open_caches_see_each_other_at_a_flush(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    for cache, request in ((one, ONE), (other, TWO)):
        cache.put(request, likely(*[1.0] * len(request.continuation)))
        cache.flush()
    assert other.get(ONE) is not None
    assert len(opened(tmp_path)) == 2


def _write(folder, start):
    cache = opened(folder)
    for number in range(start, start + 200):
        cache.put(Greedy((number,), 4), TextAnswer((number,) * (number % 7), True))
        cache.flush()


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 100, 1000)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0, 0]
    cache = opened(tmp_path)
    assert len(cache) == 500
    for number in [*range(300), *range(1000, 1200)]:
        assert cache.get(Greedy((number,), 4)).ids == (number,) * (number % 7)


def test_twenty_thousand_answers_are_opened_in_under_a_second(tmp_path):
    reply = likely(*[0.25] * 40)
    fill(tmp_path, {Likelihood((number,), (1,) * 40): reply for number in range(20_000)})
    start = time.process_time()
    cache = opened(tmp_path)
    assert time.process_time() - start < 1
    assert len(cache) == 20_000
