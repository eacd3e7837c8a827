"""Where a run should land."""

import pytest

from wagle.unlearning.watching.rules import parse_rule
from wagle.unlearning.watching.targets import target_of

BAND = {"forget.probability.low": 0.13, "forget.probability.high": 0.19}
OTHERS = {"forget.extraction_strength.high": 0.18, "forget.exact_memorization.high": 0.7}


def target(rule, **reference):
    return target_of(parse_rule(rule), {"reference": {"forget.probability": 0.16, **reference}})


def test_a_run_lands_in_the_middle_third_of_the_references_band():
    made = target("forget.probability <= reference", **BAND)
    assert made.band == (0.13, 0.19)
    (aim,) = made.aims
    assert aim == pytest.approx((0.15, 0.17))
    assert made.falling


def test_a_band_never_reaches_under_half_of_the_reference():
    ends = {"forget.probability.low": 0.02, "forget.probability.high": 0.20}
    assert target("forget.probability <= reference", **ends).band == pytest.approx((0.08, 0.2))


@pytest.mark.parametrize(
    ("rule", "ends"),
    [
        ("forget.probability <= reference", [0.152, 0.16]),  # no interval is known
        ("forget.probability <= 2 * reference", [0.304, 0.32]),
        ("forget.probability < 0.1", [0.095, 0.1]),
        ("forget.nll >= 4", [4.0, 4.2]),
    ],
)
def test_any_other_limit_is_met_or_just_passed(rule, ends):
    made = target(rule, **(BAND if "2 *" in rule else {}))
    assert made.band == pytest.approx(ends)
    assert made.aims == (made.band,)
    assert made.falling == ("<" in rule)


def test_if_other_probes_leak_the_far_part_of_the_band_is_next():
    made = target("forget.probability <= reference", **BAND, **OTHERS)
    assert made.aims[1] == pytest.approx((0.135, 0.15))
    assert made.others == {
        "forget.extraction_strength": 0.18,
        "forget.exact_memorization": 0.7,
    }
    clear = {"forget.extraction_strength": 0.18, "forget.exact_memorization": 0.7}
    assert not made.leaks(clear)
    for name in clear:
        assert made.leaks({**clear, name: clear[name] + 0.01})


@pytest.mark.parametrize(
    ("probability", "memorized", "spent"),
    [(0.16, 0.69, True), (0.16, 0.71, False), (0.15, 0.71, True), (0.1, 0.71, True)],
)
def test_training_goes_on_while_probes_leak_and_the_band_has_room(probability, memorized, spent):
    figures = {
        "forget.probability": probability,
        "forget.extraction_strength": 0.1,
        "forget.exact_memorization": memorized,
    }
    made = target("forget.probability <= reference", **BAND, **OTHERS)
    assert made.spent(figures) is spent


def test_a_rule_about_what_stays_has_no_other_probes():
    ends = {
        "retain.probability": 0.5,
        "retain.probability.low": 0.4,
        "retain.probability.high": 0.6,
    }
    made = target("retain.probability <= reference", **ends, **OTHERS)
    assert (made.aims, made.others) == ((made.band.middle,), {})
