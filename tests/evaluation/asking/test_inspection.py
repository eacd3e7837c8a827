"""Hidden states and gradient norms: those of a plain model, one request at a time."""

import pytest
import torch

from tests.conftest import FAMILIES, make_model
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.inspection import answer_norm
from wagle.evaluation.asking.requests import GradientNorm, HiddenStates
from wagle.system.errors import WagleError

ASKED = [
    HiddenStates((5, 6, 7, 8, 9), (4,)),
    HiddenStates((5, 6), (0, 1)),
    HiddenStates(tuple(range(10, 40)), (29, 3)),
]


def slow_states(model, request):
    """(blocks, T, width): what every block gives of one record, without padding."""
    kept = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    handles = [b.register_forward_hook(lambda _, __, out: kept.append(out)) for b in blocks]
    with torch.no_grad():
        model(torch.tensor([request.ids]))
    for handle in handles:
        handle.remove()
    return torch.stack([(k if isinstance(k, torch.Tensor) else k[0])[0] for k in kept])


@pytest.mark.parametrize("budget", [1, 64, 10_000])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_states_are_what_every_block_leaves_of_one_record_alone(family, budget):
    model = make_model(family)
    answers = answer_requests(model, ASKED, stop_ids=[2], batch_tokens=budget)
    for request in ASKED:
        wanted = slow_states(model, request)[:, list(request.positions)]
        found = answers.states(request)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_norm_is_that_of_the_gradient_of_the_mean_loss(family):
    model = make_model(family)
    request = GradientNorm((5, 6, 7), (8, 9, 10), (True, False, True))
    found = answer_requests(model, [request], stop_ids=[2]).norm(request)
    logits = model(torch.tensor([[5, 6, 7, 8, 9, 10]])).logits[0].log_softmax(-1)
    (-(logits[2, 8] + logits[4, 10]) / 2).backward()
    norms = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
    assert found.whole == pytest.approx(float(norms.norm()), rel=1e-4)
    assert found.mean == pytest.approx(float(norms.mean()), rel=1e-4)


def test_t29_the_gradient_of_one_logit_vector_shared_by_all_steps():
    class Shared(torch.nn.Module):
        """Whatever came before, the next token has the probabilities .1, .2, .3, .4."""

        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
            self.head = torch.nn.Identity()

        def get_output_embeddings(self):
            return self.head

        def forward(self, input_ids, **_):
            rows = self.logits.expand(*input_ids.shape, 4)
            from types import SimpleNamespace

            return SimpleNamespace(logits=self.head(rows))

    found = answer_norm(Shared(), GradientNorm((0,), (3, 2, 1, 0)))
    assert found.whole == pytest.approx(0.223607, abs=1e-6)
    assert found.mean == pytest.approx(0.223607, abs=1e-6)


def test_weights_and_what_was_frozen_come_back_as_they_were(model):
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    old = torch.ones_like(frozen)
    last = list(model.parameters())[-1]
    last.grad = torch.ones_like(last)
    answer_requests(model, [GradientNorm((5,), (6, 7))], stop_ids=[2])
    assert frozen.grad is None
    assert not frozen.requires_grad
    assert last.grad.equal(torch.ones_like(last))
    assert old is not None


def test_gradients_that_are_not_finite_are_an_error(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[6] = float("nan")
    with pytest.raises(WagleError, match="gradients that are not finite"):
        answer_requests(model, [GradientNorm((5, 6), (7,))], stop_ids=[2])


@pytest.mark.parametrize("positions", [(), (5,)])
def test_positions_outside_the_tokens_are_an_error(model, positions):
    with pytest.raises(WagleError, match="needs positions within its tokens"):
        answer_requests(model, [HiddenStates((5, 6, 7), positions)], stop_ids=[2])
