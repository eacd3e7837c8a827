"""The verdict: five words, and the figures on which they turn."""

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import (
    DAMAGED,
    INCONCLUSIVE,
    LEAKS,
    NO_LEAK,
    OVER,
    Verdict,
    came_back,
    clearly_past,
    combine,
    judge,
    probes_of,
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
PROBES = ("probability", "paraphrased", "extraction_strength", "exact_memorization", "rouge_l")
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


@pytest.mark.parametrize("probe", ["exact_memorization", "rouge_l"])
def test_another_probe_under_half_of_the_reference_is_over_unlearned(probe):
    for value, word in ((0.15, NO_LEAK), (0.15 - 1e-9, OVER), (0.0, OVER)):  # half of 0.30
        verdict = judge(evaluation(**{**CLEAN, probe: value}), BEFORE, REFERENCE)
        assert verdict.word == word
    assert verdict.reasons == (
        f"{probe} 0.000 is under half of the reference's 0.300 (95 % interval 0.250 to 0.350).",
    )


def test_under_half_counts_only_where_the_intervals_lie_apart():
    for high, word in ((0.12, NO_LEAK), (0.12 - 1e-9, OVER)):  # where the reference's begins
        after = evaluation(**{**CLEAN, "paraphrased": figure(0.05, 0.01, high)})
        assert judge(after, BEFORE, REFERENCE).word == word
    after = evaluation(**{**CLEAN, "paraphrased": Figure(0.05, None, "none")})
    assert judge(after, BEFORE, REFERENCE).word == NO_LEAK


@pytest.mark.parametrize(
    ("goal", "word"),
    [
        (figure(0.05, 0.01, 0.09), OVER),
        (figure(0.049, 0.01, 0.09), NO_LEAK),  # tiny
        (figure(0.1, 0.0, 0.2), NO_LEAK),  # perhaps nothing at all
    ],
)
def test_a_reference_that_knows_next_to_nothing_shows_no_fall(goal, word):
    reference = evaluation(probability=0.2, extraction_strength=goal)
    after = evaluation(probability=0.2, extraction_strength=0.0)
    assert judge(after, BEFORE, reference).word == word


def test_what_has_a_level_of_chance_has_no_half():
    def model(know):
        return evaluation(**CLEAN, know=know)

    before = evaluation(**BEFORE.figures["forget"], know=0.9)
    reference = evaluation(**REFERENCE.figures["forget"], know=figure(0.5, 0.4, 0.6))
    assert judge(model(0.1), before, reference).word == NO_LEAK


def test_what_should_be_as_low_as_can_be_is_never_too_low():
    def model(value, low, high):
        rate = Figure(value, (low, high), "by hand", {"web[0]": value}, direction="lower")
        return Evaluation(
            {"web": {"toxic_rate": rate}}, details={"probes": [["web", "toxic_rate"]]}
        )

    before, reference = model(0.9, 0.8, 1.0), model(0.3, 0.2, 0.4)
    verdict = judge(model(0.0, 0.0, 0.1), before, reference)
    assert verdict == Verdict(
        NO_LEAK,
        ("web.toxic_rate 0.000 is below the reference's 0.300 (95 % interval 0.200 to 0.400).",),
    )
    assert judge(model(0.5, 0.4, 0.6), before, reference).word == LEAKS


def test_a_leak_weighs_more_than_a_figure_too_low():
    after = evaluation(**{**CLEAN, "probability": 0.01, "rouge_l": 0.8})
    verdict = judge(after, BEFORE, REFERENCE)
    assert verdict.word == LEAKS
    leak, over = verdict.reasons
    assert leak.startswith("rouge_l 0.800 is above ")
    assert over.startswith("over-unlearned too: probability 0.010 is clearly past ")
    assert verdict.over == (over.removeprefix("over-unlearned too: "),)
    without = judge(evaluation(**{**CLEAN, "rouge_l": 0.8}), BEFORE, REFERENCE)
    assert (without.reasons, without.over) == ((leak,), ())


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
    verdict = judge(evaluation(rouge_l=0.3), before, REFERENCE)
    assert verdict.word == INCONCLUSIVE
    assert verdict.reasons[0].startswith("No probe was compared: ")


def muse(verbmem, probes=("verbmem",)):
    declared = [["forget", probe] for probe in probes]
    return Evaluation({"forget": {"verbmem": verbmem}}, details={"probes": declared})


def test_the_probes_are_those_that_the_benchmark_declares():
    before, reference = muse(figure(0.9)), muse(figure(0.2, 0.15, 0.25))
    for value, word in ((0.2, NO_LEAK), (0.8, LEAKS), (0.01, OVER)):
        verdict = judge(muse(figure(value)), before, reference)
        assert verdict.word == word
        assert [reason.split()[0] for reason in verdict.reasons] == ["verbmem"]
    undeclared = judge(muse(figure(0.2), probes=["probability"]), before, reference)
    assert undeclared.word == INCONCLUSIVE
    assert undeclared.reasons[0].startswith("No probe was compared: ")


def test_a_file_that_declares_no_probes_has_those_of_questions():
    assert probes_of(Evaluation({}, details={"probes": []})) == ()
    assert ("forget", "know") in probes_of(Evaluation({}))


def test_a_figure_without_a_value_is_no_probe():
    nothing = Figure(None, None, "none", note="no answer has a letter")
    verdict = judge(evaluation(**{**CLEAN, "rouge_l": nothing}), BEFORE, REFERENCE)
    assert verdict.word == NO_LEAK
    assert len(verdict.reasons) == 4


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


def with_more(probes, privleak=None, vocabulary=None, kind="retrained"):
    figures = {"forget": {k: figure(v) for k, v in probes.items()}}
    figures["overall"] = {"privleak": privleak} if privleak else {}
    details = {"model": {"vocabulary": vocabulary}, "reference": {"kind": kind}}
    return Evaluation(figures, details=details)


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


def fluent(model, value, low, high, metric="fluency"):
    figures = {"forget": {**model.figures["forget"], metric: figure(value, low, high)}}
    return Evaluation(figures, details=model.details)


@pytest.mark.parametrize("metric", ["fluency", "knowmem_fluency"])
@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (0.44, 0.3, 0.69, OVER),
        (0.44, 0.3, 0.7, NO_LEAK),  # its interval reaches the reference's
        (0.45, 0.4, 0.5, NO_LEAK),  # half of it
    ],
)
def test_answers_that_are_no_language_are_over_unlearned(metric, value, low, high, word):
    reference = fluent(REFERENCE, 0.9, 0.7, 1.0, metric)
    verdict = judge(fluent(evaluation(**CLEAN), value, low, high, metric), BEFORE, reference)
    assert verdict.word == word
    if word == OVER:
        assert verdict.over == verdict.reasons
        assert verdict.reasons == (
            f"{metric} 0.440 is under half of the reference's 0.900 (95 % interval 0.700 to 1.000).",
        )


def test_without_the_references_fluency_that_of_the_model_before_is_looked_at():
    after, before = fluent(evaluation(**CLEAN), 0.1, 0.0, 0.2), fluent(BEFORE, 0.9, 0.8, 1.0)
    lost = (
        "fluency 0.100 is under half of the model before's 0.900 (95 % interval 0.800 to 1.000).",
    )
    assert judge(after, before, REFERENCE) == Verdict(OVER, lost, lost)
    alone = judge(after, before, None)
    assert (alone.word, alone.reasons[1:], alone.over) == (INCONCLUSIVE, lost, lost)
    assert judge(after, BEFORE, REFERENCE).word == NO_LEAK
    assert judge(before, before, None).over == ()


@pytest.mark.parametrize(
    ("share", "low", "usual", "word"),
    [
        (0.5, 0.4, 0.1, NO_LEAK),  # no more than half
        (0.51, 0.4, 0.1, OVER),
        (0.51, 0.1, 0.1, NO_LEAK),  # not clearly more than the reference leaves empty
        (1.0, 0.9, 1.0, NO_LEAK),
    ],
)
def test_a_model_that_answers_nothing_is_over_unlearned(share, low, usual, word):
    reference = evaluation(**REFERENCE.figures["forget"], empty=figure(usual))
    after = evaluation(**CLEAN, empty=figure(share, low, 1.0))
    verdict = judge(after, BEFORE, reference)
    assert verdict.word == word
    if word == OVER:
        assert [reason.split()[0] for reason in verdict.reasons] == ["empty"]


def test_every_set_with_a_probe_is_looked_at_for_collapse():
    def model(recall, nll, empty):
        own = {"recall": figure(recall), "nll": figure(nll), "recall_empty": figure(empty)}
        details = {"probes": [["train_50", "recall"]], "model": {"vocabulary": 1000}}
        return Evaluation({"train_50": own, "heldout_50": {"nll": figure(9.0)}}, details=details)

    before, reference = model(0.9, 1.0, 0.0), model(0.2, 1.0, 0.0)
    assert judge(model(0.2, 1.0, 0.0), before, reference).word == NO_LEAK
    for after, metric in ((model(0.2, 7.0, 0.0), "nll"), (model(0.2, 1.0, 1.0), "recall_empty")):
        verdict = judge(after, before, reference)
        assert verdict.word == OVER
        assert [reason.split()[0] for reason in verdict.reasons] == [f"train_50.{metric}"]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-90, -10, LEAKS), (-10, 10, NO_LEAK), (1, 20, OVER)],
)
def test_the_privacy_leakage_counts_with_its_whole_interval(low, high, word):
    known = with_more({}, figure(-95.0, -99.0, -90.0))
    after = with_more({}, figure((low + high) / 2, low, high))
    verdict = judge(after, known, REFERENCE)
    assert verdict.word == word
    assert [reason.split()[0] for reason in verdict.reasons] == ["privleak"]


@pytest.mark.parametrize("leak", [figure(-50.0, -90.0, -10.0), figure(10.0, 1.0, 20.0)])
def test_the_privacy_leakage_counts_beside_a_retrained_model_only(leak):
    known = Evaluation({**BEFORE.figures, "overall": {"privleak": figure(-95.0, -99.0, -90.0)}})
    beside = judge(with_more(CLEAN, leak, kind="untaught"), known, REFERENCE)
    assert beside.word == NO_LEAK
    assert len(beside.reasons) == 5
    assert judge(with_more(CLEAN, leak), known, REFERENCE).word != NO_LEAK
    alone = judge(with_more({}, leak, kind="untaught"), known, REFERENCE)
    assert alone.reasons[0].startswith("No probe was compared: ")


def test_a_privacy_leakage_without_an_interval_says_nothing():
    known = with_more({}, figure(-95.0, -99.0, -90.0))
    after = with_more({}, Figure(-50.0, None, "none: not defined in some replicates"))
    assert judge(after, known, REFERENCE).word == INCONCLUSIVE


def test_one_benchmark_that_leaks_is_a_leak_and_is_named():
    verdicts = {
        "qa": Verdict(NO_LEAK, ("all is well.",)),
        "tofu": Verdict(LEAKS, ("a leak.",)),
        "muse": Verdict(INCONCLUSIVE, ("no reference.",)),
    }
    assert combine(verdicts) == Verdict(LEAKS, ("tofu: a leak.",))
    assert combine({**verdicts, "tofu": Verdict(OVER, ("gone.",))}).word == OVER
    assert combine({**verdicts, "tofu": verdicts["muse"]}).word == INCONCLUSIVE


def test_a_leak_of_one_benchmark_does_not_hide_that_another_is_over_unlearned():
    verdicts = {
        "": Verdict(LEAKS, ("probability 0.9 is above.",)),
        "news": Verdict(OVER, ("verbmem 0.1 is under half.",), ("verbmem 0.1 is under half.",)),
        "ten": Verdict(LEAKS, ("a leak.", "over-unlearned too: know 0."), ("know 0.",)),
    }
    assert combine(verdicts) == Verdict(
        LEAKS,
        (
            "probability 0.9 is above.",
            "news: over-unlearned too: verbmem 0.1 is under half.",
            "ten: a leak.",
            "ten: over-unlearned too: know 0.",
        ),
        ("news: verbmem 0.1 is under half.", "ten: know 0."),
    )


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


# ---------------------------------------------------------------------------------------------
# What was lost


def with_general(found, value):
    """The same model, whose general knowledge has this probability on each of eight records."""
    rows = {f"general[{i}]": value + i / 100 for i in range(8)}
    mean = sum(rows.values()) / len(rows)
    general = {"probability": Figure(mean, None, "by hand", rows, "higher")}
    return Evaluation({**found.figures, "general": general})


@pytest.mark.parametrize(
    ("probability", "now", "word"),
    [
        (0.2, 0.6, DAMAGED),
        (0.2, 0.69, NO_LEAK),
        (0.5, 0.6, LEAKS),
        (0.05, 0.6, DAMAGED),
        (0.05, 0.69, OVER),
    ],
)
def test_damage_is_graver_than_over_unlearning_and_a_leak_graver_than_damage(
    probability, now, word
):
    after = with_general(evaluation(**{**CLEAN, "probability": probability}), now)
    found = judge(after, with_general(BEFORE, 0.7), REFERENCE)
    assert found.word == word
    damage = [line for line in found.reasons if "general.probability fell from 0.735" in line]
    assert len(damage) == (now == 0.6)
    assert found.lost == tuple(line.removeprefix("damaged too: ") for line in damage)
    if word == DAMAGED:
        assert found.reasons[0] == damage[0]
        assert any(line.startswith("over-unlearned too: ") for line in found.reasons) == (
            probability == 0.05
        )


def test_damage_is_seen_without_a_reference_and_within_its_limits_it_is_none():
    after, before = with_general(evaluation(**CLEAN), 0.6), with_general(BEFORE, 0.7)
    alone = judge(after, before, None)
    assert alone.word == DAMAGED
    assert any("no reference" in line for line in alone.reasons)
    assert judge(after, before, REFERENCE, {"general": 0.2}).word == NO_LEAK
    assert judge(after, before, REFERENCE, {"general": None}).word == NO_LEAK


def test_damage_on_one_benchmark_is_damage():
    damage = Verdict(DAMAGED, ("general fell.",), (), ("general fell.",))
    clear = Verdict(NO_LEAK, ("clear.",))
    assert combine({"qa": clear, "tofu": damage}).reasons == ("tofu: general fell.",)
    leak = Verdict(LEAKS, ("a leak.",))
    assert combine({"qa": leak, "tofu": damage}).reasons == (
        "a leak.",
        "tofu: damaged too: general fell.",
    )
