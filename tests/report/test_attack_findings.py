"""The most that an attack brought back, in one sentence."""

from __future__ import annotations

from tests.report.attack_files import probe, relearning, sampling
from wagle.report.attack_findings import strongest


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
