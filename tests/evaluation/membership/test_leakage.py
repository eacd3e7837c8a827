"""Privacy leakage: figures by hand, and references that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wagle.evaluation.membership.leakage import (
    assumed_leakage,
    check_leakage,
    leakage_figures,
    membership_figures,
    no_leakage,
    privacy_replicates,
)
from wagle.evaluation.membership.requests import attack_table
from wagle.metrics.membership import Trace, auc, privacy, privleak
from wagle.system.errors import WagleError

OWN = {"forget": [0.1, 0.2, 1.0], "holdout": [0.9, 1.0, 2.0]}  # an AUC of 5/6
RETRAINED = {"forget": [1.0, 0.9, 1.2], "holdout": [0.9, 1.1, 1.3]}  # one of 11/18


def measured(losses, attacks=("loss", "min_k")):
    traces = {
        name: [
            Trace(f"{name}[{i}]", torch.tensor([value], dtype=torch.float64), size=20 + i)
            for i, value in enumerate(values)
        ]
        for name, values in losses.items()
    }
    return membership_figures(traces, attack_table(attacks))


# Figures


def test_membership_figures_hold_scores_aucs_and_shares_found():
    figures = measured(OWN)
    assert figures["forget"]["mia_loss"].per_record == {
        "forget[0]": 0.1,
        "forget[1]": 0.2,
        "forget[2]": 1.0,
    }
    assert figures["holdout"]["zlib_bytes"].value == 21
    area = figures["overall"]["auc_loss"]
    assert area.value == pytest.approx(5 / 6)
    assert area.interval[0] < 5 / 6 <= area.interval[1]
    assert area.n == 6
    assert figures["overall"]["tpr_1_loss"].value == pytest.approx(2 / 3)  # .1 and .2 are below .9
    assert figures["overall"]["tpr_5_forgotten_loss"].value == 0  # none is above 2


def test_leakage_is_made_of_the_aucs_of_both_models():
    own, retrained = measured(OWN), measured(RETRAINED)
    found = leakage_figures(own, retrained)
    reference = auc(RETRAINED["forget"], RETRAINED["holdout"])
    assert reference == pytest.approx(11 / 18)
    for suffix in ("", "_loss"):  # of one token, min_k and loss are the same
        assert found["privleak" + suffix].value == pytest.approx(privleak(5 / 6, reference))
        assert found["rel_diff" + suffix].value == pytest.approx(100 * (15 / 11 - 1))
        assert found["privacy" + suffix].value == pytest.approx(privacy(5 / 6, reference))
    assert found["privacy"].direction == "higher"
    assert found["privleak"].target == 0


def test_the_attack_reference_compares_the_losses_of_both_models():
    found = leakage_figures(measured(OWN), measured(RETRAINED))
    gaps = {name: [a - b for a, b in zip(OWN[name], RETRAINED[name], strict=True)] for name in OWN}
    assert found["auc_reference"].value == auc(gaps["forget"], gaps["holdout"])
    assert "privleak_reference" not in found


def test_a_model_against_itself_leaks_nothing_in_every_replicate():
    generator = np.random.default_rng(0)
    losses = {name: generator.normal(size=40).tolist() for name in OWN}
    found = leakage_figures(measured(losses), measured(losses))
    assert found["privleak"].value == 0
    assert found["privleak"].interval == (0, 0)  # the same texts are drawn of both models
    assert found["privacy"].interval == (1, 1)


def test_the_order_of_a_reference_that_was_read_back_does_not_matter():
    own, retrained = measured(OWN), measured(RETRAINED)
    turned = {
        name: {
            metric: replace(figure, per_record=dict(reversed(figure.per_record.items())))
            for metric, figure in figures.items()
        }
        for name, figures in retrained.items()
    }
    assert leakage_figures(own, turned) == leakage_figures(own, retrained)


def test_a_reference_of_other_texts_is_refused_with_split_and_counts():
    other = measured({"forget": [1.0, 0.9], "holdout": RETRAINED["holdout"]})
    with pytest.raises(WagleError, match=r"split forget\) needs the same records: 3 and 2"):
        leakage_figures(measured(OWN), other)


def test_a_reference_without_the_attack_is_refused():
    with pytest.raises(WagleError, match=r"no forget.mia_min_k; evaluate it with the same"):
        leakage_figures(measured(OWN), measured(RETRAINED, ["loss"]))


def test_a_reference_is_checked_by_the_places_of_the_texts_alone():
    places = {name: [f"{name}[{i}]" for i in range(3)] for name in OWN}
    check_leakage(places, ["loss", "min_k"], measured(RETRAINED))
    with pytest.raises(WagleError, match=r"no forget.mia_lower; .* or leave that attack out"):
        check_leakage(places, ["lower"], measured(RETRAINED))
    with pytest.raises(WagleError, match=r"split holdout\) needs the same records: 2 and 3"):
        check_leakage({**places, "holdout": places["holdout"][1:]}, ["loss"], measured(RETRAINED))


def test_replicates_of_privacy_are_those_of_its_interval():
    drawn = privacy_replicates(measured(OWN), measured(RETRAINED), ["loss", "min_k"])
    assert drawn.shape == (2, 2000)
    found = leakage_figures(measured(OWN), measured(RETRAINED))["privacy_loss"]
    assert tuple(np.quantile(drawn[0], [0.025, 0.975])) == pytest.approx(found.interval)


def test_a_reference_that_knows_the_forget_set_is_refused():
    with pytest.raises(WagleError, match="knows the forget set"):
        leakage_figures(measured(OWN), measured({"forget": [0, 0, 0], "holdout": [1, 1, 1]}))


def test_a_reference_that_knows_the_forget_set_may_leave_the_leakage_untold_instead():
    told = measured({"forget": [0, 0, 0], "holdout": [1, 1, 1]})
    places = {name: [f"{name}[{i}]" for i in range(3)] for name in OWN}
    with pytest.raises(WagleError, match="knows the forget set"):
        check_leakage(places, ["min_k"], told)
    check_leakage(places, ["min_k"], told, refuse=False)
    found = leakage_figures(measured(OWN), told, refuse=False)
    assert found["privleak"].value is None
    assert found["privleak"].note == "not reported: the reference's AUC is 1, above 0.9"
    assert no_leakage("none")["privleak"].note == "none"


def test_an_attack_by_which_the_reference_knows_the_set_is_undefined_with_a_note():
    told = {"forget": [0, 0, 0], "holdout": [1, 1, 1]}
    found = leakage_figures(measured(OWN, ["loss"]), measured(told, ["loss"]))
    assert found["privleak_loss"].value is None
    assert found["privleak_loss"].interval is None
    assert "above 0.9" in found["privleak_loss"].note


def test_a_relative_difference_from_zero_is_undefined_with_a_note():
    never = {"forget": [1, 1, 1], "holdout": [0, 0, 0]}
    found = leakage_figures(measured(OWN, ["min_k"]), measured(never, ["min_k"]))
    assert found["rel_diff"].value is None
    assert "AUC is 0" in found["rel_diff"].note
    assert found["privleak"].value == pytest.approx(-100 * 5 / 6)


def test_an_assumed_auc_is_said_to_be_assumed():
    found = assumed_leakage(measured(OWN), 0.5)
    assert found["privleak"].value == pytest.approx(-100 * (5 / 6 - 0.5) / 0.5)
    assert found["privleak"].interval[0] <= found["privleak"].value
    assert "0.5 that was given, not measured" in found["privleak"].note
