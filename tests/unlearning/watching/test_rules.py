import math

import pytest

from wagle.system.errors import WagleError
from wagle.unlearning.watching.rules import (
    FIGURES,
    OF_OPTIONS,
    OPERATORS,
    Rule,
    parse_best,
    parse_rule,
    uniform_guess,
)

KNOWN = {
    "reference": {
        "forget.probability": 0.2,
        "forget.nll": 4.0,
        "retain.probability": 0.8,
        "retain.nll": 0.3,
    },
    "before": {
        "forget.probability": 0.9,
        "forget.nll": 0.5,
        "retain.probability": 0.9,
        "retain.nll": 0.2,
    },
    "uniform": uniform_guess(100),
}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("forget.probability <= reference", Rule("forget.probability", "<=", 1.0, "reference")),
        ("forget.nll>=0.5*uniform", Rule("forget.nll", ">=", 0.5, "uniform")),
        ("  retain.nll  >  1.1 *  before ", Rule("retain.nll", ">", 1.1, "before")),
        ("retain.probability < .5", Rule("retain.probability", "<", 0.5)),
        ("forget.probability <= 1e-3", Rule("forget.probability", "<=", 0.001)),
        ("forget.nll >= 2.", Rule("forget.nll", ">=", 2.0)),
    ],
)
def test_a_condition_is_read_whatever_its_spaces(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("forget.probability <= reference", 0.2, True),
        ("forget.probability < reference", 0.2, False),
        ("forget.probability <= 0.5 * reference", 0.11, False),
        ("forget.probability <= 0.5 * reference", 0.1, True),
        ("retain.nll > 1.5 * before", 0.31, True),
        ("retain.nll > 1.5 * before", 0.29, False),
        ("forget.nll >= uniform", math.log(100), True),
        ("forget.probability <= uniform", 0.011, False),
        ("forget.probability <= 0.05", 0.05, True),
        ("forget.probability <= 0.05", math.nan, False),
        ("forget.nll >= 0", math.nan, False),
    ],
)
def test_a_condition_holds_by_values_worked_out_by_hand(text, value, holds):
    rule = parse_rule(text)
    assert rule.holds({rule.figure: value}, KNOWN) is holds


@pytest.mark.parametrize("figure", sorted(FIGURES))
@pytest.mark.parametrize("comparison", sorted(OPERATORS))
def test_every_figure_and_comparison_can_be_asked_for(figure, comparison):
    rule = parse_rule(f"{figure} {comparison} 2 * before")
    known = {"before": {figure: 0.4}}
    assert rule.holds({figure: 0.8}, known) is ("=" in comparison)
    assert rule.holds({figure: 0.7}, known) is ("<" in comparison)
    assert rule.holds({figure: 0.9}, known) is (">" in comparison)


def test_a_uniform_guess_has_the_nll_and_the_probability_of_one_in_v():
    guess = uniform_guess(50)
    assert {guess.pop(name) for name in OF_OPTIONS} == {0.0}  # it prefers no answer
    for name, value in guess.items():
        assert value == pytest.approx(math.log(50) if name.endswith("nll") else 0.02)


def test_a_rule_says_which_set_and_which_models_it_reads():
    needs = parse_rule("forget.probability <= reference").needs
    assert (needs.sets, needs.names) == ({"forget"}, {"reference"})
    needs = parse_rule("retain.nll > 3").needs
    assert (needs.sets, needs.names) == ({"retain"}, frozenset())
    needs = parse_best("min forget.nll where retain.nll <= 1.1 * before").needs
    assert (needs.sets, needs.names) == ({"forget", "retain"}, {"before"})
    assert parse_best("max retain.nll").needs == ({"retain"}, frozenset())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not a condition; write FIGURE <= TERM"),
        ("forget.probability", "is not a condition"),
        ("forget.probability <=", "is not a condition"),
        ("0 < forget.nll < 3", "is not a condition"),
        ("forget.probabilty <= 1", "unknown figure 'forget.probabilty'; did you mean 'forget.prob"),
        ("probability <= 1", "unknown figure 'probability'; did you mean"),
        ("forget.nll == 1", "unknown comparison '=='"),
        ("forget.nll => 1", "unknown comparison '=>'"),
        ("forget.nll >= refrence", "unknown number or name 'refrence'; did you mean 'reference'"),
        ("forget.nll >= 2 * refrence", "'refrence'; did you mean 'reference'"),
        (
            "forget.nll >= reference * 2",
            "'reference \\* 2' is not a term; write a number, a name or",
        ),
        ("forget.nll >= 2 *", "unknown number or name ''"),
        ("forget.nll >= * before", "'\\* before' is not a term"),
        ("forget.nll >= 2 * 3 * before", "unknown number or name '3 \\* before'"),
        ("forget.nll >= -1", "unknown number or name '-1'"),
        ("forget.nll >= inf", "unknown number or name 'inf'"),
        ("forget.nll >= 1e999", "unknown number or name '1e999'"),
        ("forget.nll >= nan", "unknown number or name 'nan'"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text, said):
    with pytest.raises(WagleError, match=said) as caught:
        parse_rule(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("forget.nll", "is not a choice; write min FIGURE or max FIGURE"),
        ("min forget.nll where", "is not a choice"),
        ("min forget.nll if retain.nll < 1", "is not a choice"),
        ("least forget.nll", "unknown goal 'least'"),
        ("mni forget.nll", "unknown goal 'mni'; did you mean 'min'"),
        ("min forget.nl", "unknown figure 'forget.nl'; did you mean 'forget.nll'"),
        ("min forget.nll where retain.nll", "'retain.nll' is not a condition"),
        ("min forget.nll where retain.nll < 1 and", "unknown number or name '1 and'"),
    ],
)
def test_what_is_no_choice_is_refused_in_one_line(text, said):
    with pytest.raises(WagleError, match=said) as caught:
        parse_best(text)
    assert "\n" not in str(caught.value)


def _figures(forget, retain):
    return {"forget.probability": forget, "retain.probability": retain}


@pytest.mark.parametrize(
    ("text", "candidate", "incumbent", "better"),
    [
        ("min forget.probability", (0.1, 0.5), (0.2, 0.9), True),
        ("min forget.probability", (0.3, 0.9), (0.2, 0.5), False),
        ("max retain.probability", (0.3, 0.9), (0.2, 0.5), True),
        ("max retain.probability", (0.1, 0.4), (0.2, 0.5), False),
        ("min forget.probability", (0.2, 0.9), (0.2, 0.5), False),  # a tie goes to the earlier
        ("min forget.probability", (0.9, 0.5), (math.nan, 0.5), True),
        ("max retain.probability", (0.9, math.nan), (0.9, 0.1), False),
        ("max retain.probability", (0.9, math.nan), (0.9, math.nan), False),
    ],
)
def test_the_figure_decides_between_two_checkpoints(text, candidate, incumbent, better):
    assert parse_best(text).better(_figures(*candidate), _figures(*incumbent), KNOWN) is better


@pytest.mark.parametrize(
    ("candidate", "incumbent", "better"),
    [
        ((0.1, 0.82), (0.05, 0.5), True),  # it alone meets the conditions
        ((0.05, 0.5), (0.1, 0.82), False),
        ((0.1, 0.82), (0.15, 0.9), True),  # both do
        ((0.25, 0.82), (0.3, 0.9), True),  # neither does: forget is not at most reference
    ],
)
def test_conditions_come_before_the_figure(candidate, incumbent, better):
    best = parse_best(
        "min forget.probability where retain.probability >= 0.9 * before "
        "and forget.probability <= reference"
    )
    assert best.better(_figures(*candidate), _figures(*incumbent), KNOWN) is better


def test_anything_is_better_than_nothing_but_need_not_meet_the_conditions():
    best = parse_best("max retain.probability where forget.probability <= reference")
    assert best.better(_figures(0.9, math.nan), None, KNOWN)
    assert not best.meets(_figures(0.9, 0.9), KNOWN)
    assert best.meets(_figures(0.2, 0.9), KNOWN)


def test_auto_is_the_least_extracted_of_those_that_keep_the_retain_set():
    best = parse_best("auto")
    assert str(best) == ("min forget.extraction_strength where retain.probability >= 0.95 * before")
    assert best.figures == ("forget.extraction_strength", "retain.probability")
    known = {"before": {"retain.probability": 0.8}}

    def looked(strength, retain):
        return {"forget.extraction_strength": strength, "retain.probability": retain}

    kept = looked(0.3, 0.76)
    assert best.meets(kept, known)
    assert best.better(looked(0.2, 0.76), kept, known)
    assert not best.better(looked(0.1, 0.759), kept, known)
    assert not best.better(kept, kept, known)  # the earlier stays


@pytest.mark.parametrize(
    "text",
    [
        "min forget.probability",
        "max retain.nll where forget.nll >= 0.9 * uniform and forget.probability <= 0.1",
    ],
)
def test_a_choice_reads_back_from_its_text(text):
    assert str(parse_best(text)) == text
    assert parse_best(str(parse_best(text))) == parse_best(text)
