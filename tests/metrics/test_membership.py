"""Membership: the self-checks T23 to T30 and T43 of spec/metrics.md, and what must hold always."""

import math
import sys
import zlib as compression

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from wagle.metrics.membership import (
    MEMBERSHIP_ATTACKS,
    Trace,
    auc,
    bag_of_words,
    check_reference,
    min_k,
    min_k_plus_plus,
    privacy,
    privleak,
    rel_diff,
    share_of,
    tpr_at_fpr,
    zlib,
    zlib_size,
)
from wagle.system.errors import WagleError

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


def trace(*log_probs, **more):
    return Trace("forget[3]", torch.tensor([-p for p in log_probs], dtype=torch.float64), **more)


def moments(probabilities):
    logs = [math.log(p) for p in probabilities]
    mean = sum(p * log for p, log in zip(probabilities, logs, strict=True))
    variance = sum(p * (log - mean) ** 2 for p, log in zip(probabilities, logs, strict=True))
    return mean, variance


# Attacks


@pytest.mark.parametrize(("k", "expected"), [(0.4, 2.5), (0.2, 3.0), (0.1, 3.0)])
def test_t26_min_k_of_five_tokens(k, expected):
    assert min_k(trace(-0.1, -2, -0.5, -3, -1), k=k) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "z"), [(0, 0.633092), (1, -1.148612), (2, -2.134419)])
def test_t27_min_k_plus_plus_standardises_by_the_moments(target, z):
    probabilities = (0.7, 0.2, 0.1)
    mean, variance = moments(probabilities)
    assert (mean, variance) == pytest.approx((-0.801819, 0.494387), abs=1e-6)
    one = trace(
        math.log(probabilities[target]),
        moments=torch.tensor([[mean, variance]], dtype=torch.float64),
    )
    assert min_k_plus_plus(one, k=1) == pytest.approx(-z, abs=1e-6)


def test_t28_both_min_k_of_four_tokens_under_one_distribution():
    probabilities = (0.1, 0.2, 0.3, 0.4)
    spread = torch.tensor([moments(probabilities)] * 4, dtype=torch.float64)
    one = trace(*(math.log(probabilities[t]) for t in (3, 2, 1, 0)), moments=spread)
    assert float(one.token_nll.sum()) == pytest.approx(6.032287, abs=1e-6)
    assert min_k(one, k=0.5) == pytest.approx(1.956012, abs=1e-6)
    assert min_k_plus_plus(one, k=0.5) == pytest.approx(1.589653, abs=1e-6)
    z = [0.854742, 0.178398, -0.774855, -2.404451]
    assert min_k_plus_plus(one, k=1) == pytest.approx(-sum(z) / 4, abs=1e-6)


def test_t29_gradnorm_is_the_norm_that_was_measured():
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).requires_grad_()
    loss = -torch.log_softmax(logits, 0)[[3, 2, 1, 0]].mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.tolist() == pytest.approx([-0.15, -0.05, 0.05, 0.15])
    assert MEMBERSHIP_ATTACKS["gradnorm"](
        trace(-1, gradient=float(gradient.norm()))
    ) == pytest.approx(0.223607, abs=1e-6)


def test_t30_zlib_sizes():
    texts = ["The quick brown fox jumps over the lazy dog.", 40 * "a", ""]
    exact = not hasattr(compression, "ZLIBNG_VERSION")  # zlib-ng packs a little differently
    sizes = [zlib_size(text) for text in texts]
    assert sizes == pytest.approx([51, 12, 8], abs=0 if exact else 6)


def test_zlib_divides_the_mean_or_the_sum_by_the_size():
    one = trace(-1, -3, size=10)
    assert zlib(one) == MEMBERSHIP_ATTACKS["zlib"](one) == pytest.approx(0.2)
    assert zlib(one, summed=True) == MEMBERSHIP_ATTACKS["zlib_sum"](one) == pytest.approx(0.4)


def test_the_other_attacks_compare_mean_losses():
    one = trace(-1, -3, reference=0.5, lower=4.0)
    assert MEMBERSHIP_ATTACKS["loss"](one) == 2.0
    assert MEMBERSHIP_ATTACKS["reference"](one) == 1.5
    assert MEMBERSHIP_ATTACKS["lower"](one) == 0.5


def test_lower_of_a_certain_lower_cased_text_is_finite():
    assert MEMBERSHIP_ATTACKS["lower"](trace(-1, lower=0.0)) == pytest.approx(1e9)


def test_the_share_of_tokens_is_exact_in_decimals():
    assert int(100 * 0.29) == 28  # which is why
    assert share_of(0.29, 100) == share_of("0.29", 100) == 29
    assert min_k(trace(*(-i for i in range(100))), k=0.29) == pytest.approx(85)  # of 71 to 99


def test_a_saturated_distribution_is_standardised_by_the_smallest_variance():
    one = trace(-0.5, moments=torch.tensor([[0.0, 0.0]], dtype=torch.float64))
    assert min_k_plus_plus(one) == pytest.approx(0.5 / 1e-3)


@pytest.mark.parametrize("name", ["reference", "zlib", "lower", "min_k++", "gradnorm"])
def test_an_attack_names_the_record_that_lacks_what_it_needs(name):
    with pytest.raises(WagleError, match=r"forget\[3\]: the attack .* needs"):
        MEMBERSHIP_ATTACKS[name](trace(-1))


@pytest.mark.parametrize("k", [0, -0.1, 1.1])
def test_a_share_outside_zero_to_one_is_refused(k):
    with pytest.raises(WagleError, match="a share of the tokens"):
        min_k(trace(-1), k=k)


def test_a_trace_refuses_no_tokens_and_numbers_that_are_not_finite():
    with pytest.raises(WagleError, match=r"forget\[3\] has no scored token"):
        trace()
    with pytest.raises(WagleError, match=r"forget\[3\]: token_nll is not finite"):
        trace(float("nan"), -1)
    with pytest.raises(WagleError, match=r"forget\[3\]: lower is not finite"):
        trace(-1, lower=math.inf)


# Figures


def test_t23_the_auc_counts_a_tie_as_half():
    forget, holdout = [0.1, 0.2, 1.0], [0.9, 1.0, 2.0]
    assert auc(forget, holdout) == pytest.approx(0.833333, abs=1e-6)
    assert 1 - auc(forget, holdout) == pytest.approx(0.166667, abs=1e-6)  # MUSE's orientation


def test_t43_the_auc_of_five_and_five():
    assert auc([0.7, 0.4, 0.1, 0.3, 0.5], [0.9, 0.8, 0.4, 0.6, 0.7]) == pytest.approx(0.84)


@given(SCORES, SCORES)
def test_the_auc_is_that_of_all_pairs_and_of_scikit_learn(forget, holdout):
    pairs = [(h > f) + (h == f) / 2 for h in holdout for f in forget]
    assert auc(forget, holdout) == pytest.approx(sum(pairs) / len(pairs))
    labels = [0] * len(forget) + [1] * len(holdout)
    assert auc(forget, holdout) == pytest.approx(roc_auc_score(labels, forget + holdout))
    assert auc(holdout, forget) == pytest.approx(1 - auc(forget, holdout))


def test_an_auc_needs_finite_scores_of_both_sets():
    with pytest.raises(WagleError, match="one holdout text"):
        auc([1.0], [])
    with pytest.raises(WagleError, match="one forget text"):
        auc([math.nan], [1.0])


@given(SCORES, SCORES, st.sampled_from(["0", "0.01", "0.05", "0.25", "0.5"]))
def test_the_share_found_is_the_best_of_all_thresholds(forget, holdout, fpr):
    for sign, forgotten in ((1, False), (-1, True)):
        found = [
            sum(sign * u <= edge for u in forget) / len(forget)
            for edge in [-9, *(sign * u for u in forget)]
            if sum(sign * u <= edge for u in holdout) / len(holdout) <= float(fpr)
        ]
        assert tpr_at_fpr(forget, holdout, fpr, forgotten=forgotten) == max(found)


def test_the_share_found_in_both_directions():
    holdout = [float(i) for i in range(100)]
    assert tpr_at_fpr([-1.0, 0.5, 4.5, 50.0], holdout, 0.01) == 0.5
    assert tpr_at_fpr([-1.0, 0.5, 4.5, 50.0], holdout, 0.05) == 0.75
    assert tpr_at_fpr([99.5, 98.5, 50.0, 1.0], holdout, 0.01, forgotten=True) == 0.5


@pytest.mark.parametrize(
    ("value", "retrained", "expected"),
    [
        (0.9967, 0.3826, -99.4655),
        (0.9967, 0.5, -99.34),
        (0.0, 0.3826, 61.9695),
        (2e-5, 0.981, 5163.05),
        (0.4, 0.4, 0.0),
    ],
)
def test_t24_privacy_leakage(value, retrained, expected):
    assert privleak(value, retrained) == pytest.approx(expected, rel=1e-5)


def test_t25_privacy_is_one_at_the_reference_and_falls_to_both_sides():
    assert privacy(0.9965, 0.3874) == pytest.approx(0.005713, abs=1e-6)
    assert privacy(0.6, 0.6) == 1
    assert privacy(0.0, 0.6) == pytest.approx(0)


def test_relative_differences_and_their_undefined_places():
    assert rel_diff(0.6, 0.4) == pytest.approx(50)
    assert rel_diff(0.6, 0.0) is None
    assert privleak(0.6, 1.0) is None


def test_a_reference_that_knows_the_forget_set_is_refused():
    check_reference(0.9)
    with pytest.raises(WagleError, match=r"knows the forget set \(AUC 0.981"):
        check_reference(0.981)


def test_words_tell_sets_of_two_topics_apart_and_warn():
    forget = [f"the harbour and ship number {i}" for i in range(20)]
    holdout = [f"a kitchen with bread number {i}" for i in range(20)]
    found = bag_of_words(forget, holdout)
    assert found.auc == 1
    assert "words alone tell" in found.warning


def test_words_do_not_tell_sets_of_one_topic_apart():
    one = [f"the harbour and ship number {i}" for i in range(30)]
    found = bag_of_words(one[::2], one[1::2])
    assert found.interval[0] <= 0.5
    assert found.warning is None


def test_the_bag_of_words_needs_two_texts_of_each_set():
    with pytest.raises(WagleError, match="at least two texts"):
        bag_of_words(["a"], ["b", "c"])


@pytest.mark.parametrize("texts", [["...", "!?"], ["", "-"]])
def test_texts_without_words_have_no_auc_but_a_note(texts):
    found = bag_of_words(texts, ["--", "?"])
    assert (found.auc, found.interval) == (None, None)
    assert found.warning.endswith("no text has a word")


def test_a_word_that_only_a_left_out_text_has_is_no_error():
    found = bag_of_words(["harbour", "..."], ["--", "?"])  # no word in one fold's training
    assert 0 <= found.auc <= 1


def test_the_bag_of_words_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(WagleError, match=r"needs scikit-learn: pip install .wagle\[eval\]."):
        bag_of_words(["a", "b"], ["c", "d"])
