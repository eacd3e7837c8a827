"""Figures of what lm-eval found: ratios of sums, and what cannot be one."""

import math

import pytest

from wagle.evaluation.figures import LOWER
from wagle.evaluation.harness.figures import measure_samples, ratio_figure
from wagle.system.errors import WagleError


def test_a_perplexity_is_a_ratio_of_sums_T33():
    documents = {"w[0]": (-20.0, 5), "w[1]": (-50.0, 20)}
    words = ratio_figure("word_perplexity", documents)
    assert words.value == pytest.approx(16.444647, abs=1e-6)
    assert words.per_record == {"w[0]": 4.0, "w[1]": 2.5}
    assert words.interval == pytest.approx((math.exp(2.5), math.exp(4)))
    assert (words.n, words.direction) == (2, LOWER)
    in_bytes = {"w[0]": (-20.0, 25), "w[1]": (-50.0, 100)}
    value = ratio_figure("byte_perplexity", in_bytes).value
    assert value == pytest.approx(math.exp(70 / 125))
    assert value == pytest.approx(1.750673, abs=1e-6)
    assert ratio_figure("bits_per_byte", in_bytes).value == pytest.approx(0.807909, abs=1e-6)


def test_a_perplexity_beyond_float64_is_absent_and_says_so():
    figure = ratio_figure("word_perplexity", {"w[0]": (-9000.0, 10), "w[1]": (-20.0, 1)})
    assert figure.value is None
    assert figure.interval is None
    assert "exp(820.0)" in figure.note


def test_a_document_without_words_is_named():
    with pytest.raises(WagleError, match=r"w\[1\] is empty"):
        ratio_figure("word_perplexity", {"w[0]": (-1.0, 1), "w[1]": (-1.0, 0)})


def sampled(values, response, *, metric="acc", given):
    samples = [
        {
            "doc_id": n,
            "filtered_resps": [response],
            "filter": "none",
            "metrics": [metric],
            metric: v,
        }
        for n, v in enumerate(values)
    ]
    return {
        "samples": {"t": samples},
        "results": {"t": {f"{metric},none": given}},
        "higher_is_better": {"t": {metric: True}},
    }


def test_a_log_probability_that_is_not_finite_is_an_error_that_names_the_question():
    for bad in (math.nan, -math.inf):
        with pytest.raises(WagleError, match=r"t\[0\]: the log-probability .*float32"):
            measure_samples(sampled([1.0], (bad, False), given=1.0), {}, {}, {"t": None})


def test_a_value_that_is_no_mean_is_kept_without_an_interval():
    found = measure_samples(
        sampled([0.5, 0.1], "said", metric="bleu", given=12.5), {}, {}, {"t": None}
    )
    figure = found.figures["t"]["bleu"]
    assert (figure.value, figure.interval, figure.n) == (12.5, None, 2)
    with pytest.raises(WagleError, match=r"bleu of t\[0\] and its task is nan"):
        measure_samples(
            sampled([0.5, 0.1], "said", metric="bleu", given=math.nan), {}, {}, {"t": None}
        )
