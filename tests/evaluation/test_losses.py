"""What was lost of the sets that must stay."""

import pytest

from wagle.evaluation.figures import HIGHER, Figure
from wagle.evaluation.losses import LIMIT, losses, what_was_lost
from wagle.evaluation.result import Evaluation


def kept(values, metric="probability", direction=HIGHER):
    """A figure that should be high, of these values by record."""
    rows = {f"r[{i}]": value for i, value in enumerate(values)}
    return {metric: Figure(sum(values) / len(values), None, "by hand", rows, direction)}


def result(**sets):
    return Evaluation(sets)


BEFORE = result(general=kept([0.8, 0.7, 0.9, 0.8] * 6))


def fallen(share):
    return result(general=kept([v * (1 - share) for v in [0.8, 0.7, 0.9, 0.8] * 6]))


def test_a_loss_is_a_share_of_the_figure_before_with_its_paired_interval():
    (loss,) = losses(fallen(0.15), BEFORE)
    assert (loss.name, loss.metric, loss.limit) == ("general", "probability", LIMIT)
    assert loss.share == pytest.approx(0.15)
    assert 0.14 < loss.interval[0] < 0.15 < loss.interval[1] < 0.16
    assert loss.sentence().startswith("general.probability fell from 0.800 to 0.680, by 15.0 % (95")
    assert loss.sentence().endswith("; at most 5 % may be lost.")


@pytest.mark.parametrize(("share", "lost"), [(0.0, 0), (0.03, 0), (0.06, 1), (-0.5, 0)])
def test_only_what_surely_fell_beyond_the_limit_is_lost(share, lost):
    assert len(what_was_lost(losses(fallen(share), BEFORE))) == lost


def test_one_record_that_fell_far_is_no_sure_loss():
    values = [0.8, 0.7, 0.9, 0.8] * 6
    (loss,) = losses(
        result(general=kept([0.0, *values[1:], 0.0, 0.0])),
        result(general=kept([*values, 0.9, 0.9])),
    )
    assert loss.beyond
    assert not loss.surely_beyond


def test_each_set_may_have_its_own_limit_or_none():
    (loss,) = losses(fallen(0.15), BEFORE, {"general": 0.2})
    assert not loss.beyond
    (free,) = losses(fallen(0.9), BEFORE, {"general": None})
    assert not free.beyond
    assert "may be lost" not in free.sentence()
    (other,) = losses(fallen(0.15), BEFORE, {"retain": 0.2})
    assert other.surely_beyond


def test_what_must_go_or_is_not_paired_counts_for_nothing():
    for name in ("forget", "forgotten", "holdout", "overall"):
        assert losses(result(**{name: kept([0.1])}), result(**{name: kept([0.9])})) == []
    assert losses(result(general=kept([0.1, 0.1])), result(general=kept([0.9]))) == []
    assert losses(result(general=kept([0.1])), result(retain=kept([0.9]))) == []
    lower = kept([0.1], direction="lower")
    assert losses(result(general=lower), result(general=kept([0.9], direction="lower"))) == []
    assert losses(result(general=kept([0.0])), result(general=kept([0.0]))) == []


def test_without_a_probability_the_accuracy_stands_for_a_set():
    (loss,) = losses(
        result(mmlu=kept([1.0, 0.0, 0.0], "accuracy")),
        result(mmlu=kept([1.0, 1.0, 0.0], "accuracy")),
    )
    assert (loss.metric, loss.share) == ("accuracy", pytest.approx(0.5))
