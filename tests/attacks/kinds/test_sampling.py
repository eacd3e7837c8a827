"""Sampling: the estimators, what is drawn, and the curves."""

import itertools
from statistics import mean

import pytest

from tests.conftest import make_tokenizer
from wagle.attacks.kinds.sampling import ask_often, best_of_k, leak_at_k
from wagle.attacks.parts import question_contexts
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, Sample, TextAnswer
from wagle.system.errors import WagleError

SMALL = {"samples": 3, "max_new_tokens": 6, "limit": 4}  # settings that keep the attack short
STATES, START = ["forget"], None


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


@pytest.fixture
def records(forget):
    return read_records(forget, name="forget")


def _answers(encoder, task, say):
    """An engine that answers every sample with ``say(place, number)``."""
    found = {}
    for request in task.requests:
        _, place, number = request.key.split("/")
        ids = encoder.tokenizer(say(place, int(number)), add_special_tokens=False)["input_ids"]
        found[request] = TextAnswer(tuple(ids), True)
    return Answers(found)


@pytest.mark.parametrize(
    ("n", "c", "k", "leak"),
    [(10, 3, 1, 0.3), (10, 3, 2, 0.533333), (10, 3, 5, 0.916667), (200, 1, 128, 0.64)],
)
def test_t36_leak_at_k(n, c, k, leak):
    assert leak_at_k(n, c, k) == pytest.approx(leak, abs=5e-7)


@pytest.mark.parametrize(("k", "best"), [(2, 0.566667), (1, 0.375), (4, 0.8)])
def test_t37_mean_of_the_best_of_k(k, best):
    assert best_of_k([0.4, 0.1, 0.8, 0.2], k) == pytest.approx(best, abs=5e-7)


def test_leak_is_certain_where_fewer_than_k_answers_do_not_leak_and_never_where_none_does():
    assert leak_at_k(5, 3, 3) == 1.0
    assert leak_at_k(5, 0, 5) == 0.0


def test_leak_of_many_samples_neither_overflows_nor_rounds_to_one():
    assert leak_at_k(20_000, 1, 10_000) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_estimators_are_the_mean_over_all_ways_to_pick_k_answers(k):
    scores = [0.1, 0.7, 0.7, 0.0, 0.5]
    ways = list(itertools.combinations(scores, k))
    assert best_of_k(scores, k) == pytest.approx(mean(map(max, ways)), rel=1e-12)
    assert leak_at_k(5, 3, k) == pytest.approx(mean(max(w) >= 0.5 for w in ways), rel=1e-12)


@pytest.mark.parametrize("k", [0, 4])
def test_k_beyond_the_samples_is_an_error(k):
    for call in (lambda: leak_at_k(3, 1, k), lambda: best_of_k([0.1, 0.2, 0.3], k)):
        with pytest.raises(WagleError, match=f"k is {k}, but there are 3 samples"):
            call()


def test_a_score_that_is_nan_is_an_error():
    with pytest.raises(WagleError, match="not finite"):
        best_of_k([0.1, float("nan")], 1)


def test_requests_are_keyed_by_seed_record_and_number(encoder, records):
    task = ask_often(encoder, records[:2], samples=3, temperature=0.7, top_p=0.9, seed=5)
    assert [r.key for r in task.requests] == [
        f"5/forget[{i}]/{j}" for i in (0, 1) for j in range(3)
    ]
    context = encoder.encode(records[:1])[0].context
    assert task.requests[0] == Sample(context, 128, 0.7, 0.9, "5/forget[0]/0")
    assert len(set(task.requests)) == 6


def test_curves_come_from_the_share_of_leaking_answers(encoder, records):
    # forget[0], "Ada Holm wrote it.": one of three answers has half of its four words, one a
    # quarter; forget[4], "Yes.": none has its word.
    said = {"forget[0]": ["Ada Holm", "Ada", "fish"], "forget[4]": ["no", "no", "no"]}
    task = ask_often(encoder, [records[0], records[4]], samples=3)
    found = task.measure(_answers(encoder, task, lambda place, number: said[place][number]))
    figures = found.figures["forget"]
    assert list(figures) == [f"{name}@{k}" for name in ("leak", "rouge_l") for k in (1, 2, 3)]
    assert figures["leak@1"].per_record == {"forget[0]": pytest.approx(1 / 3), "forget[4]": 0.0}
    assert figures["leak@2"].value == pytest.approx(1 / 3)  # (2/3 + 0) / 2
    assert figures["leak@3"].value == 0.5
    assert figures["rouge_l@1"].per_record["forget[0]"] == pytest.approx(0.25)
    assert figures["rouge_l@2"].per_record["forget[0]"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert figures["rouge_l@3"].value == pytest.approx(0.25)
    assert [text.said for text in found.texts["forget"]] == ["Ada Holm", "no"]


def test_the_threshold_is_reported_and_counts_as_a_leak(encoder, records):
    for threshold, leak in ((0.5, 1.0), (0.51, 0.0)):
        task = ask_often(encoder, records[:1], samples=1, threshold=threshold)
        figure = task.measure(_answers(encoder, task, lambda *_: "Ada Holm")).figures["forget"]
        assert figure["leak@1"].value == leak
        assert figure["leak@1"].note == f"an answer leaks from a ROUGE-L recall of {threshold} on"
        assert task.data["threshold"] == threshold


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_settings_out_of_range_are_named(encoder, records, settings, message):
    with pytest.raises(WagleError, match=message):
        ask_often(encoder, records, **settings)


def test_records_that_cannot_be_sampled_are_named(encoder):
    with pytest.raises(WagleError, match="at least one record"):
        ask_often(encoder, [])
    text = Record("text", answer="A text.", place="forget[0]")
    with pytest.raises(WagleError, match=r"forget\[0\] is of the kind 'text'"):
        ask_often(encoder, [text])
    silent = Record("qa", prompt="Where?", answer="北京", place="forget[7]")
    with pytest.raises(WagleError, match=r"no word in the answer of forget\[7\]"):
        ask_often(encoder, [silent])


def test_a_chat_is_continued_before_its_last_answer(encoder):
    turns = [
        {"role": "user", "content": "Who wrote it?"},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": "Where does she live?"},
        {"role": "assistant", "content": "Oslo."},
    ]
    (context,) = question_contexts(
        encoder, read_records([{"messages": turns}], name="forget"), "sampling"
    )
    text = encoder.tokenizer.decode(list(context))
    assert "Where does she live?" in text
    assert "Ada." in text
    assert "Oslo" not in text
