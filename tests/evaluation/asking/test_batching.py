"""Batches: how large they are, and what happens where memory runs out."""

import psutil
import pytest
import torch

from wagle.evaluation.asking import batching
from wagle.evaluation.asking.batching import choose_budget, in_batches
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Greedy, Likelihood
from wagle.system.errors import WagleError


def test_where_memory_runs_out_batches_are_halved_and_answers_stay(model, caplog):
    requests = [Likelihood((5, 6, i), (8, 9)) for i in range(10, 40)]
    requests += [Greedy((5, i), 4) for i in range(10, 40)]
    wanted = answer_requests(model, requests, stop_ids=[2])
    sizes = []

    def small(_, args):
        sizes.append(args[0].numel())
        if args[0].shape[0] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.get_input_embeddings().register_forward_pre_hook(small)
    with caplog.at_level("WARNING", logger="wagle"):
        answers = answer_requests(model, requests, stop_ids=[2], batch_tokens=1024)
    handle.remove()
    assert "memory ran out at" in caplog.text
    for request in requests:
        if isinstance(request, Greedy):
            assert answers.text(request) == wanted.text(request)
        else:
            torch.testing.assert_close(
                answers.likelihood(request).token_nll, wanted.likelihood(request).token_nll
            )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"),
    ],
)
def test_no_memory_for_one_request_is_a_one_line_error(model, error):
    def never(*_):
        raise error

    model.get_input_embeddings().register_forward_pre_hook(never)
    with pytest.raises(WagleError, match=r"memory runs out at \d+ tokens; store the weights"):
        answer_requests(model, [Likelihood((5, 6), (8, 9))], stop_ids=[2])


def test_another_error_is_not_taken_for_a_lack_of_memory(model):
    def fails(*_):
        raise RuntimeError("a shape is wrong")

    model.get_input_embeddings().register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        answer_requests(model, [Likelihood((5, 6), (8, 9))], stop_ids=[2])


def test_the_budget_falls_with_the_free_memory(model, monkeypatch):
    assert choose_budget(model) == 1024
    little = psutil.virtual_memory()._replace(available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    assert choose_budget(model) == 256


def batched(lengths, budget, *, shortage=None, size=lambda _: 1):
    """Items of these lengths, batch by batch; ``shortage(batch, budget)`` is raised, if any."""
    batches = []

    def answer(batch, budget):
        error = shortage and shortage(batch, budget)
        if error:
            raise error
        batches.append(list(batch))
        yield [(item, None) for item in batch]

    items = [f"{i}:{length}" for i, length in enumerate(lengths)]
    found = in_batches(items, budget, lambda x: int(x.split(":")[1]), answer, "testing", size=size)
    return [item for part in found for item, _ in part], batches


def test_the_longest_come_first_and_equal_ones_in_their_order():
    said, batches = batched([3, 5, 3, 5], budget=100)
    assert said == ["1:5", "3:5", "0:3", "2:3"]
    assert len(batches) == 1


def test_a_batch_holds_what_its_longest_item_leaves_room_for():
    _, batches = batched([4, 4, 4, 2, 2, 2], budget=8)
    assert batches == [["0:4", "1:4"], ["2:4", "3:2"], ["4:2", "5:2"]]


def test_an_item_that_is_longer_than_the_budget_runs_alone():
    _, batches = batched([9, 9, 1], budget=8)
    assert batches == [["0:9"], ["1:9"], ["2:1"]]


def test_items_of_no_length_run_together():
    _, batches = batched([0, 0, 0], budget=3)
    assert batches == [["0:0", "1:0", "2:0"]]


def test_nothing_is_asked_of_nothing():
    assert batched([], budget=8) == ([], [])


def test_a_shortage_halves_what_was_used_for_good_and_loses_no_item(caplog):
    def shortage(batch, _):
        return RuntimeError("not enough memory: you tried") if len(batch) > 2 else None

    with caplog.at_level("WARNING", logger="wagle"):
        said, batches = batched([4] * 7, budget=1000, shortage=shortage)
    assert said == [f"{i}:4" for i in range(7)]
    # 7 * 4 = 28 tokens were used; 14 are three items, which used 12; 6 are one
    assert [record.args for record in caplog.records] == [(28, 14), (12, 6)]
    assert [len(batch) for batch in batches] == [1] * 7


def test_the_budget_never_falls_below_one_token_and_then_it_is_an_error():
    tried = []

    def shortage(batch, budget):
        tried.append((len(batch), budget))
        return torch.OutOfMemoryError("no")

    with pytest.raises(WagleError, match="memory runs out at 3 tokens; store the weights in a"):
        batched([3], budget=8, shortage=shortage)
    assert tried == [(1, 8), (1, 1)]  # half of the 3 tokens that were used


def test_memory_for_written_answers_is_a_quarter_of_what_is_free_within_its_ends(
    model, monkeypatch
):
    # of the tiny llama: 2 * 2 blocks * 2 heads * 8 wide * 4 bytes = 256 bytes a token
    for free, tokens in ((256 * 4 * 1000, 1000), (256 * 4, 100), (256 * 4 * 10**6, 6400)):
        monkeypatch.setattr(batching, "free_memory", lambda _, free=free: free)
        assert batching.kept_budget(model, 100) == tokens
