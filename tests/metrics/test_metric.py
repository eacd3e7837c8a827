"""Metrics of one record: what they take, and that they are left out where it is not there."""

from dataclasses import fields

import pytest

from wagle.metrics.metric import Answered, Metric, values
from wagle.metrics.table import ALL, JUDGED, METRICS, PROBES, WRITTEN

FULL = Answered(
    right=2.0,
    hits=(True, False, True, True),
    reworded=1.0,
    wrong=(2.5, 1.5),
    paraphrased=0.5,
    expected="she lives in Oslo",
    said="Oslo it is",
    finished=False,
)


def test_a_record_with_all_answers_has_all_metrics():
    wanted = {
        "probability": 0.13533528,  # exp(-2)
        "paraphrased": 0.60653066,  # exp(-0.5)
        "rouge_l": 0.25,
        "know": 0.73105858,  # 1 / (1 + exp(1 - 2))
        "accuracy": 1.0,  # 1 is less than 1.5, whatever the answer in its own words has
        "extraction_strength": 0.5,
        "exact_memorization": 0.75,
        "nll": 2.0,
        "repetition": 0.0,
        "token_entropy": 1.0,
        "empty": 0.0,
        "at_limit": 1.0,
    }
    found = values(METRICS, FULL)
    assert set(found) == set(METRICS)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert list(METRICS)[: len(wanted)] == list(wanted)


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_where_nothing_is_reproduced_the_extraction_strength_is_0_however_short_the_answer(tokens):
    assert METRICS["extraction_strength"].value(Answered(hits=(False,) * tokens)) == 0
    assert METRICS["exact_memorization"].value(Answered(hits=(False,) * tokens)) == 0


def test_an_answer_of_another_form_does_not_win_by_its_form():
    by_form = Answered(right=0.5, reworded=3.0, wrong=(2.0, 2.5))
    assert METRICS["accuracy"].value(by_form) == 0
    assert METRICS["accuracy"].value(Answered(right=0.5, reworded=0.5, wrong=(2.0, 2.5))) == 1


@pytest.mark.parametrize("name", [field.name for field in fields(Answered)])
def test_what_a_metric_needs_and_is_not_there_leaves_out_that_metric_alone(name):
    lacking = Answered(**{**vars(FULL), name: None})
    left = {metric for metric, kind in METRICS.items() if name not in kind.needs}
    assert set(values(METRICS, lacking)) == left
    assert left < set(METRICS)


def test_a_metric_that_is_not_defined_of_a_record_is_left_out():
    chinese = Answered(expected="她住在奥斯陆", said="奥斯陆")
    known = {name for name, kind in METRICS.items() if set(kind.needs) <= {"expected", "said"}}
    assert known - set(values(METRICS, chinese)) == {"rouge_l"}


def test_a_value_of_0_is_one():
    assert values({"nll": METRICS["nll"]}, Answered(right=0.0)) == {"nll": 0.0}


def test_a_metric_without_a_function_has_no_value_for_one_record():
    assert Metric("share").value(FULL) is None
    assert values(JUDGED, FULL) == {}


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_takes_fields_of_a_record_s_answers(name):
    kind = METRICS[name]
    assert kind.of is not None
    assert kind.needs
    assert set(kind.needs) <= {field.name for field in fields(Answered)}
    assert {kind.direction, kind.kept} <= {"higher", "lower", "target"}


def test_what_is_measured_everywhere_has_a_value_for_every_text():
    everywhere = {name: kind for name, kind in METRICS.items() if kind.everywhere}
    assert set(WRITTEN) <= set(everywhere)
    for said in ("", "!", "one two"):
        assert set(values(everywhere, Answered(said=said, finished=True))) == set(everywhere)


def test_the_table_has_every_metric_once_and_those_by_classifiers_last():
    assert list(ALL) == [*METRICS, *JUDGED]
    assert set(PROBES) <= set(METRICS)
