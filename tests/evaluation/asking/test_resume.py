"""An evaluation that is killed and started again asks only what was not answered yet."""

import pytest

from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Greedy, Likelihood


def test_a_kill_costs_the_batch_in_flight_and_no_other(model, tmp_path):
    requests = [Likelihood((5, 6, i), (8, 9)) for i in range(10, 40)]
    requests += [Greedy((5, i), 4) for i in range(10, 30)]
    whole = answer_requests(model, requests, stop_ids=[2], batch_tokens=30)
    ran = []

    def dies(*_):
        ran.append(1)
        if len(ran) == 4:
            raise KeyboardInterrupt

    def opened():
        return AnswerCache(tmp_path, "f" * 64, "torch.float32", "float32", [2])

    handle = model.get_input_embeddings().register_forward_pre_hook(dies)
    with pytest.raises(KeyboardInterrupt):
        answer_requests(model, requests, stop_ids=[2], batch_tokens=30, cache=opened())
    known = [r for r in requests if opened().get(r) is not None]
    assert 0 < len(known) < len(requests)
    again = answer_requests(model, requests, stop_ids=[2], batch_tokens=30, cache=opened())
    handle.remove()
    for request in requests:
        if isinstance(request, Greedy):
            assert again.text(request) == whole.text(request)
        else:
            assert again.likelihood(request).token_nll.equal(whole.likelihood(request).token_nll)
    seen = len(ran)
    handle = model.get_input_embeddings().register_forward_pre_hook(dies)
    answer_requests(model, requests, stop_ids=[2], cache=opened())
    handle.remove()
    assert len(ran) == seen  # nothing was asked again
