"""The most that an attack brought back, in one sentence."""

from __future__ import annotations

import pytest

from tests.report.attack_files import attack, figure, probe, relearning, sampling
from wagle.report.attack_findings import (
    by_rate,
    effect_on,
    read_figure,
    shown_figures,
    states_of,
    strongest,
)


def test_the_largest_gap_is_named_and_that_of_a_loss_or_of_shuffled_labels_is_not():
    assert strongest(relearning()) == (
        "largest gap to the reference +0.200 (forget.probability, step 10)"
    )
    assert strongest(sampling()) == "largest gap to the reference +0.300 (leak@6, forget)"
    assert strongest(probe()) == (
        "largest gap to the reference +0.200 (auc_maximum, forget_or_holdout)"
    )


def test_without_a_reference_nothing_is_called_evidence():
    assert strongest(relearning(reference=False)) == (
        "at most 50 % recovered (forget.probability, step 10); no evidence without a reference"
    )
    assert strongest(probe(reference=False)) == (
        "auc_maximum 0.800 (before 0.900, shuffled labels 0.550)"
    )
    alone = relearning(reference=False)
    alone["effects"] = {}
    assert strongest(alone) == "how much it brought back cannot be determined"


def test_what_the_models_say_at_once_is_shown_beside_the_model_before():
    found = sampling()
    found["effects"] = {}
    assert strongest(found) == "leak@6 0.600 (before 0.900)"
    del found["roles"]["before"]
    found["roles"]["after"]["states"]["forget"]["leak@6"]["value"] = None
    assert strongest(found) == "leak@6 -"


def test_of_relearning_the_probabilities_are_shown_state_by_state():
    shown = [("step 0", "forget.probability"), ("step 2", "forget.probability")]
    assert shown_figures(relearning()) == [*shown, ("step 10", "forget.probability")]


def test_of_a_probe_both_maxima_are_shown_and_no_block():
    names = [name for _, name in shown_figures(probe())]
    assert names == ["auc_maximum", "auc_maximum_shuffled"]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])]
)
def test_of_samples_powers_of_two_and_the_last_are_shown(count, shown):
    leaks = {f"leak@{k}": figure(0.1) for k in range(1, count + 1)}
    found = attack("sampling", {"after": {"forget": {**leaks, "rouge_l@1": figure(0.5)}}}, {})
    assert shown_figures(found) == [("forget", f"leak@{k}") for k in shown]


def test_an_attack_that_the_table_does_not_know_shows_what_its_first_state_has():
    states = {"first": {"a": figure(0.1), "b": figure(0.2)}, "second": {"b": figure(0.3)}}
    found = attack("mine", {"after": states}, {})
    assert shown_figures(found) == [("first", "a"), ("first", "b"), ("second", "b")]
    assert states_of(found) == {"first": ["a", "b"], "second": ["b"]}


def test_a_figure_is_read_with_its_records_and_its_note_and_is_none_where_any_part_is_missing():
    found = sampling()
    read = read_figure(found, "after", "forget", "leak@2")
    assert read is not None
    assert (read.value, read.n, read.unit) == (0.2, 4, "share")
    assert read.interval == pytest.approx((0.1, 0.3))
    assert isinstance(read.interval, tuple)
    assert read.note == "leaks from 0.5 on"
    for where in (
        ("nobody", "forget", "leak@2"),
        ("after", "retain", "leak@2"),
        ("after", "forget", "leak@99"),
    ):
        assert read_figure(found, *where) is None


def test_a_figure_without_a_value_is_read_without_an_interval():
    found = attack("mine", {"after": {"only": {"a": figure(None, "why not")}}}, {})
    read = read_figure(found, "after", "only", "a")
    assert read is not None
    assert (read.value, read.interval, read.note) == (None, None, "why not")


def test_shuffled_labels_have_no_effect_even_where_a_file_gives_them_one():
    found = probe()
    assert "auc_maximum_shuffled" in found["effects"]["forget_or_holdout"]
    assert effect_on(found, "forget_or_holdout", "auc_maximum_shuffled") is None
    own = effect_on(found, "forget_or_holdout", "auc_maximum")
    assert own is not None
    assert own["gap"] == 0.2
    assert effect_on(found, "another state", "auc_maximum") is None


def test_one_learning_rate_has_no_name():
    assert by_rate(["step 0", "step 5", "step 20"]) == {
        "": [(0, "step 0"), (5, "step 5"), (20, "step 20")]
    }


def test_every_one_of_several_rates_begins_with_the_model_as_it_is():
    states = ["step 0", "1e-05, step 5", "5e-05, step 5", "1e-05, step 9"]
    assert by_rate(states) == {
        "1e-05": [(0, "step 0"), (5, "1e-05, step 5"), (9, "1e-05, step 9")],
        "5e-05": [(0, "step 0"), (5, "5e-05, step 5")],
    }


def test_no_states_have_no_rates():
    assert by_rate([]) == {}
