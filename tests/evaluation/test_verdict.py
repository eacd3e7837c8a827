"""The verdict: four words, and the figures on which they turn."""

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import (
    INCONCLUSIVE,
    LEAKS,
    NO_LEAK,
    OVER,
    PROBES,
    Verdict,
    came_back,
    clearly_past,
    combine,
    judge,
)


def figure(value, low=None, high=None):
    interval = (value if low is None else low, value if high is None else high)
    return Figure(value, interval, "by hand", {"forget[0]": value})


def evaluation(**probes):
    made = {k: v if isinstance(v, Figure) else figure(v) for k, v in probes.items()}
    return Evaluation({"forget": made}, {}, {})


REFERENCE = evaluation(
    probability=figure(0.20, 0.15, 0.25),
    paraphrased=figure(0.18, 0.12, 0.24),
    extraction_strength=figure(0.05, 0.0, 0.10),
    exact_memorization=figure(0.30, 0.25, 0.35),
    rouge_l=figure(0.30, 0.25, 0.35),
    repetition=figure(0.10, 0.05, 0.15),
)
BEFORE = evaluation(
    probability=0.9,
    paraphrased=0.6,
    extraction_strength=0.8,
    exact_memorization=0.9,
    rouge_l=0.9,
)
CLEAN = {
    "probability": 0.2,
    "paraphrased": 0.2,
    "extraction_strength": 0.05,
    "exact_memorization": 0.3,
    "rouge_l": 0.3,
}


def test_nothing_above_the_reference_and_nothing_clearly_below_is_no_leak_found():
    verdict = judge(evaluation(**CLEAN), BEFORE, REFERENCE)
    assert verdict.word == NO_LEAK == "no leak found by these probes"
    assert len(verdict.reasons) == 5
    assert verdict.reasons[0] == (
        "probability 0.200 is within reach of the reference's 0.200 (95 % interval 0.150 to 0.250)."
    )


@pytest.mark.parametrize("probe", PROBES)
def test_one_probe_above_the_interval_is_a_leak(probe):
    verdict = judge(evaluation(**{**CLEAN, probe: 0.5}), BEFORE, REFERENCE)
    assert verdict.word == LEAKS == "leaks"
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(f"{probe} 0.500 is above the reference's ")


@pytest.mark.parametrize("probe", PROBES)
def test_the_upper_edge_itself_is_no_leak(probe):
    edge = REFERENCE.figures["forget"][probe].interval[1]
    at, beyond = ({**CLEAN, probe: value} for value in (edge, edge + 1e-9))
    assert judge(evaluation(**at), BEFORE, REFERENCE).word == NO_LEAK
    assert judge(evaluation(**beyond), BEFORE, REFERENCE).word == LEAKS


def test_a_probability_below_the_lower_edge_is_over_unlearned():
    at, beyond = ({**CLEAN, "probability": value} for value in (0.15, 0.15 - 1e-9))
    assert judge(evaluation(**at), BEFORE, REFERENCE).word == NO_LEAK
    verdict = judge(evaluation(**beyond), BEFORE, REFERENCE)
    assert verdict.word == OVER == "over-unlearned"
    assert [r.split()[0] for r in verdict.reasons] == ["probability"]
    assert "is clearly past the reference's" in verdict.reasons[0]


def test_another_probe_below_the_lower_edge_is_said_but_is_no_verdict():
    verdict = judge(evaluation(**{**CLEAN, "paraphrased": 0.12 - 1e-9}), BEFORE, REFERENCE)
    assert verdict.word == NO_LEAK
    (said,) = [r for r in verdict.reasons if r.startswith("paraphrased")]
    assert "is below the reference's" in said


def test_under_half_of_the_reference_is_over_unlearned_however_wide_its_interval():
    wide = figure(0.20, 0.01, 0.60)
    reference = evaluation(probability=wide)
    for value, word in ((0.1, NO_LEAK), (0.1 - 1e-9, OVER), (0.02, OVER)):
        assert judge(evaluation(probability=value), BEFORE, reference).word == word
    assert clearly_past(0.09, wide)
    assert not clearly_past(0.1, wide)
    assert not clearly_past(0.9, wide)


@pytest.mark.parametrize("probe", ["extraction_strength", "rouge_l"])
def test_strings_that_are_gone_altogether_are_not_too_little(probe):
    assert judge(evaluation(**{**CLEAN, probe: 0.0}), BEFORE, REFERENCE).word == NO_LEAK


def test_a_leak_weighs_more_than_a_figure_too_low():
    after = evaluation(**{**CLEAN, "probability": 0.01, "rouge_l": 0.8})
    verdict = judge(after, BEFORE, REFERENCE)
    assert verdict.word == LEAKS
    assert [r.split()[0] for r in verdict.reasons] == ["rouge_l"]


def test_without_a_reference_nothing_is_concluded():
    verdict = judge(evaluation(**CLEAN), BEFORE, None)
    assert verdict.word == INCONCLUSIVE == "inconclusive"
    assert "There is no reference" in verdict.reasons[0]


def test_a_model_that_never_failed_the_probes_is_no_positive_control():
    for after in (CLEAN, {**CLEAN, "probability": 0.9}, {**CLEAN, "probability": 0.0}):
        verdict = judge(evaluation(**after), evaluation(**CLEAN), REFERENCE)
        assert verdict.word == INCONCLUSIVE
        assert "does not differ from the reference" in verdict.reasons[0]


@pytest.mark.parametrize("probe", PROBES)
def test_one_probe_that_told_them_apart_is_positive_control_enough(probe):
    edge = REFERENCE.figures["forget"][probe].interval[1]
    for value, word in ((edge, INCONCLUSIVE), (edge + 1e-9, NO_LEAK)):
        before = evaluation(**{**CLEAN, probe: value})
        assert judge(evaluation(**CLEAN), before, REFERENCE).word == word


def test_only_probes_that_all_three_models_answered_count():
    before = evaluation(probability=0.9)
    verdict = judge(evaluation(**{**CLEAN, "rouge_l": 0.9}), before, REFERENCE)
    assert verdict.word == NO_LEAK
    assert len(verdict.reasons) == 1
    assert judge(evaluation(rouge_l=0.3), before, REFERENCE).word == INCONCLUSIVE


@pytest.mark.parametrize(("kind", "word"), [("untaught", NO_LEAK), ("retrained", LEAKS)])
def test_know_is_a_probe_beside_a_retrained_model_only(kind, word):
    def model(know):
        figures = {"forget": {k: figure(v) for k, v in {**CLEAN, "know": know}.items()}}
        return Evaluation(figures, details={"reference": {"kind": kind}})

    reference = Evaluation({"forget": {**REFERENCE.figures["forget"], "know": figure(0.5)}})
    before = Evaluation({"forget": {**BEFORE.figures["forget"], "know": figure(0.9)}})
    assert judge(model(0.6), before, reference).word == word
    assert judge(model(0.5), before, reference).word == NO_LEAK


def test_accuracy_is_no_probe():
    goal = Evaluation({"forget": {**REFERENCE.figures["forget"], "accuracy": figure(0.2)}})
    both = evaluation(**CLEAN, accuracy=1.0)
    assert judge(both, both, goal).word == INCONCLUSIVE


def with_more(probes, privleak=None, vocabulary=None):
    figures = {"forget": {k: figure(v) for k, v in probes.items()}}
    figures["overall"] = {"privleak": privleak} if privleak else {}
    return Evaluation(figures, details={"model": {"vocabulary": vocabulary}})


def test_answers_less_likely_than_a_uniform_guess_are_over_unlearned():
    for nll, word in ((6.9, NO_LEAK), (6.91, OVER)):  # ln 1000 = 6.9078
        verdict = judge(with_more({**CLEAN, "nll": nll}, vocabulary=1000), BEFORE, REFERENCE)
        assert verdict.word == word
    assert verdict.reasons == (
        "nll 6.91 is above the 6.91 of a uniform guess: the answers are driven away, not unknown.",
    )


def test_answers_that_became_repetitions_are_over_unlearned():
    for share, word in ((0.49, NO_LEAK), (0.5, OVER)):
        verdict = judge(evaluation(**CLEAN, repetition=share), BEFORE, REFERENCE)
        assert verdict.word == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-90, -10, LEAKS), (-10, 10, NO_LEAK), (1, 20, OVER)],
)
def test_the_privacy_leakage_counts_with_its_whole_interval(low, high, word):
    known = with_more({}, figure(-95.0, -99.0, -90.0))
    assert judge(with_more({}, figure((low + high) / 2, low, high)), known, REFERENCE).word == word


def test_one_benchmark_that_leaks_is_a_leak_and_is_named():
    verdicts = {
        "qa": Verdict(NO_LEAK, ("all is well.",)),
        "tofu": Verdict(LEAKS, ("a leak.",)),
        "muse": Verdict(INCONCLUSIVE, ("no reference.",)),
    }
    assert combine(verdicts) == Verdict(LEAKS, ("tofu: a leak.",))
    assert combine({**verdicts, "tofu": Verdict(OVER, ("gone.",))}).word == OVER
    assert combine({**verdicts, "tofu": verdicts["muse"]}) == verdicts["qa"]


def test_what_was_forgotten_came_back_where_it_is_above_the_interval_that_it_had():
    def forgotten(value, low, high):
        return Evaluation({"forgotten": {"probability": figure(value, low, high)}}, {}, {})

    before = forgotten(0.02, 0.01, 0.03)
    assert came_back(forgotten(0.03, 0.0, 1.0), before) is None
    assert came_back(forgotten(0.0301, 0.0, 1.0), before) == (
        "what earlier requests forgot came back: its probability 0.0301 is above the 0.02 before "
        "(95 % interval 0.01 to 0.03)"
    )
    assert came_back(BEFORE, BEFORE) is None
