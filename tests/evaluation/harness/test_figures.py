"""Figures of what lm-eval found: ratios of sums, and what cannot be one."""

import math
from types import SimpleNamespace

import pytest

from wagle.evaluation.figures import HIGHER, LOWER, TARGET
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


class Group:
    """A group of the library: its tasks, and how it makes a mean of them."""

    def __init__(self, names, *rules, name="g"):
        self.name = name
        self.names = names
        self.aggregate_metric_list = [
            SimpleNamespace(metric=m, aggregation=how, weight_by_size=by) for m, how, by in rules
        ]

    def get_all_tasks(self):
        return [SimpleNamespace(task_name=name) for name in self.names]


def several(**tasks):
    """What the library found of tasks: by name the ``acc`` of every question."""
    found = {"samples": {}, "results": {}, "higher_is_better": {}}
    for name, values in tasks.items():
        one = sampled(values, (-1.0, True), given=sum(values) / len(values))
        found["samples"][name] = one["samples"]["t"]
        found["results"][name] = one["results"]["t"]
        found["higher_is_better"][name] = {"acc": True}
    return found


def notes(*names, **said):
    return {name: said.get(name) for name in names}


def test_a_group_counts_its_records_or_its_tasks_alike():
    found = several(a=[1.0, 1.0, 1.0, 0.0], b=[0.0, 0.0])
    pooled = Group(["a", "b"], ("acc", "mean", True), name="pooled")
    even = Group(["a", "b"], ("acc", "mean", False), name="even")
    made = measure_samples(found, {"p": pooled, "e": even}, {}, notes("a", "b")).figures
    assert made["pooled"]["acc"].value == pytest.approx(3 / 6)
    assert made["even"]["acc"].value == pytest.approx((3 / 4 + 0) / 2)
    for name in ("pooled", "even"):
        assert made[name]["acc"].n == 6
        assert made[name]["acc"].per_record == {}
    assert made["pooled"]["acc"].interval_method == "wilson 95 %"
    assert made["even"]["acc"].interval_method.endswith("within each task")


@pytest.mark.parametrize("rule", [("acc", "median", True), ("acc_norm", "mean", True)])
def test_a_group_that_makes_no_mean_of_a_metric_has_no_figure_of_it(rule):
    found = several(a=[1.0], b=[0.0])
    made = measure_samples(found, {"g": Group(["a", "b"], rule)}, {}, notes("a", "b"))
    assert set(made.figures) == {"a", "b"}


def test_a_group_of_which_a_task_lacks_the_metric_has_no_figure_of_it():
    found = several(a=[1.0], b=[0.0])
    for sample in found["samples"]["b"]:
        sample["metrics"] = ["other"]
        sample["other"] = 0.5
    found["results"]["b"] = {"other,none": 0.5}
    group = Group(["a", "b"], ("acc", "mean", True))
    assert "g" not in measure_samples(found, {"g": group}, {}, notes("a", "b")).figures


def test_a_composite_is_the_mean_of_its_tasks_and_stands_over_all():
    found = several(a=[1.0, 0.0], b=[1.0, 1.0, 1.0], c=[0.0])
    made = measure_samples(found, {}, {"average": ["a", "b"]}, notes("a", "b", "c"))
    assert made.figures["overall"]["average"].value == pytest.approx(0.75)
    assert made.summary == {
        "a/acc": 0.5,
        "b/acc": 1.0,
        "c/acc": 0.0,
        "mean/average": pytest.approx(0.75),
    }


def test_what_is_forgotten_should_fall_in_accuracy_and_in_nothing_else():
    found = several(a=[1.0, 0.0])
    for sample in found["samples"]["a"]:
        sample["metrics"] = ["acc", "acc_norm", "odd"]
        sample |= {"acc_norm": sample["acc"], "odd": 0.5}
    found["results"]["a"] |= {"acc_norm,none": 0.5, "odd,none": 0.5}
    found["higher_is_better"]["a"] |= {"acc_norm": True}  # of ``odd`` the library does not say
    made = measure_samples(found, {}, {}, notes("a"), forgotten=True).figures["a"]
    assert {name: figure.direction for name, figure in made.items()} == {
        "acc": LOWER,
        "acc_norm": HIGHER,
        "odd": TARGET,
    }
    assert measure_samples(found, {}, {}, notes("a")).figures["a"]["acc"].direction == HIGHER


def test_only_right_or_wrong_is_a_share():
    made = measure_samples(several(a=[1.0, 0.0]), {}, {}, notes("a")).figures["a"]["acc"]
    assert (made.unit, made.interval_method) == ("share of records", "wilson 95 %")
    made = measure_samples(several(a=[1.0, 0.5]), {}, {}, notes("a")).figures["a"]["acc"]
    assert made.unit == "mean over records"
    assert made.interval_method.startswith("bootstrap")


def test_two_filters_of_one_metric_are_two_figures():
    found = sampled([1.0, 0.0], "said", metric="exact_match", given=0.5)
    other = [
        {**s, "filter": "flexible", "exact_match": 1.0 - s["exact_match"]}
        for s in found["samples"]["t"]
    ]
    found["samples"]["t"] += [{**other[0], "exact_match": 1.0}, other[1]]
    found["results"]["t"]["exact_match,flexible"] = 1.0
    made = measure_samples(found, {}, {}, notes("t")).figures["t"]
    assert {name: figure.value for name, figure in made.items()} == {
        "exact_match": 0.5,
        "exact_match_flexible": 1.0,
    }


def test_a_group_has_the_note_of_its_tasks_where_they_share_one():
    found = several(a=[1.0], b=[0.0])
    group = {"g": Group(["a", "b"], ("acc", "mean", False))}
    made = measure_samples(found, group, {}, notes("a", "b", a="cut", b="cut"))
    assert made.figures["g"]["acc"].note == "cut"
    made = measure_samples(found, group, {}, notes("a", "b", a="cut"))
    assert made.figures["g"]["acc"].note == "see the notes of its tasks"
