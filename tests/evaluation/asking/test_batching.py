"""Batches: how large they are, and what happens where memory runs out."""

import psutil
import pytest
import torch

from wagle.evaluation.asking.batching import choose_budget
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
