"""Samples: draws that depend on their key and the model alone."""

import collections

import pytest
import torch

from tests.evaluation.asking.test_engine import lively
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.generation import draw
from wagle.evaluation.asking.requests import Greedy, Sample
from wagle.system.errors import WagleError

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


@pytest.mark.parametrize(
    ("number", "token"),
    [(0.0, 1), (0.39, 1), (0.41, 3), (0.69, 3), (0.71, 2), (0.89, 2), (0.91, 0), (0.9999999, 0)],
)
def test_a_draw_walks_the_probabilities_from_the_likeliest(number, token):
    assert draw(LOGITS, 1.0, 1.0, number) == token


@pytest.mark.parametrize(
    ("top_p", "number", "token"),
    [(0.4, 0.99, 1), (0.5, 0.99, 3), (0.7, 0.57, 1), (0.7, 0.58, 3), (0.71, 0.99, 2)],
)
def test_top_p_keeps_the_likeliest_that_reach_it_together(top_p, number, token):
    assert draw(LOGITS, 1.0, top_p, number) == token


def test_a_low_temperature_is_greedy_and_a_high_one_is_even():
    assert {draw(LOGITS, 0.01, 1.0, n / 10) for n in range(10)} == {1}
    assert draw(LOGITS, 1000.0, 1.0, 0.26) == 3  # a quarter each, likeliest first


def test_draws_come_as_often_as_they_are_likely():
    from wagle.data.draws import uniform

    counts = collections.Counter(draw(LOGITS, 1.0, 1.0, uniform(i)) for i in range(4000))
    for token, share in enumerate((0.1, 0.4, 0.2, 0.3)):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_a_sample_depends_neither_on_its_batch_nor_on_a_generator(budget):
    model = lively("llama-untied")
    asked = [Sample((5, 6, 7), 8, 1.0, 1.0, f"0/forget[0]/{i}") for i in range(6)]
    asked += [Sample((9, 8), 5, 0.7, 0.9, "0/forget[1]/0")]
    alone = {r: answer_requests(model, [r], stop_ids=[2]).text(r) for r in asked}
    torch.manual_seed(99)
    state = torch.get_rng_state()
    together = answer_requests(
        model, [*asked, Greedy((4, 5), 9)], stop_ids=[2], batch_tokens=budget
    )
    assert torch.get_rng_state().equal(state)
    assert {r: together.text(r) for r in asked} == alone
    assert len({answer.ids for answer in alone.values()}) > 3


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.5)])
def test_a_sample_without_a_distribution_is_an_error(temperature, top_p):
    model = lively("llama-untied")
    with pytest.raises(WagleError, match="give a temperature above 0 and 0 < top_p <= 1"):
        answer_requests(model, [Sample((5,), 3, temperature, top_p, "k")], stop_ids=[2])


def test_a_model_that_gives_nothing_but_nan_writes_no_text():
    model = lively("llama-untied")
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = float("nan")
    with pytest.raises(WagleError, match="log-probabilities that are not finite"):
        answer_requests(model, [Greedy((5,), 3)], stop_ids=[2])
