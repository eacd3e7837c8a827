"""Metrics of texts: the self-checks of spec/metrics.md, and their edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wagle.metrics.text import (
    bleu,
    brunet,
    closer_look_efficacy,
    corpus_bleu,
    cut_at,
    has_rouge_words,
    honore,
    language_score,
    longest_word_run,
    repetition,
    rouge,
    rouge_l,
    token_entropy,
    words,
)
from wagle.system.errors import WagleError


def test_t16_rouge_l_recall_with_stemming():
    assert rouge_l("The cat sat on the mat.", "the cat lay on a mat") == pytest.approx(4 / 6)


def test_t17_precision_recall_and_f1_of_both_kinds():
    pair = "The author was born in Taipei, Taiwan.", "Born in Taiwan, the author writes."
    assert rouge(*pair) == pytest.approx((0.5, 0.428571, 0.461538), abs=1e-6)
    assert rouge(*pair, kind="rouge1").recall == pytest.approx(0.714286, abs=1e-6)


def test_t18_the_stemmer_joins_forms_of_one_word():
    pair = "writing novels quickly", "writes novel quick"
    assert rouge(*pair).recall == pytest.approx(0.666667, abs=1e-6)
    assert rouge(*pair, stemmer=False).recall == 0


def test_t19_without_stemmer():
    found = rouge("the council of ministers", "the council met ministers today", stemmer=False)
    assert found == pytest.approx((0.6, 0.75, 0.666667), abs=1e-6)


@pytest.mark.parametrize(("reference", "answer"), [("北京", "北京"), ("", "abc"), ("abc", "")])
def test_t20_a_side_without_ascii_words_scores_zero(reference, answer):
    assert rouge(reference, answer) == (0, 0, 0)


def test_a_text_that_rouge_cannot_see_is_told_apart():
    assert not has_rouge_words("北京")
    assert not has_rouge_words("")
    assert has_rouge_words("Émile")


@pytest.mark.parametrize(
    ("answer", "expected"), [("the cat sat on a mat", 53.728497), ("the cat sat on", 60.653066)]
)
def test_t21_bleu(answer, expected):
    assert bleu("the cat sat on the mat", answer) == pytest.approx(expected, abs=1e-6)
    assert bleu("the cat sat on the mat", answer, "published") == pytest.approx(expected, abs=1e-6)


def test_t22_short_answers_score_only_as_sentences():
    assert corpus_bleu(["the cat"], ["the cat"]) == 0
    assert bleu("the cat", "the cat", "published") == 0
    assert bleu("the cat", "the cat") == pytest.approx(100)


def test_corpus_bleu_adds_counts_before_it_divides():
    # 1-grams 7/8, 2-grams 5/6, 3-grams 3/4, 4-grams 2/2; as long as the references
    found = corpus_bleu(["a b c d e", "f g h"], ["a b c d e", "f g x"])
    assert found == pytest.approx(100 * (7 / 8 * 5 / 6 * 3 / 4) ** 0.25)


def test_bleu_of_an_empty_answer_is_zero():
    assert bleu("the cat", "") == bleu("the cat", "", "published") == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("a b a c", 0.75), ("a a a a", 0.0), ("a b c d", 1.0), ("a", 0), ("", 0)]
)
def test_t32_token_entropy(text, expected):
    assert token_entropy(text) == pytest.approx(expected)


@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_token_entropy_lies_between_0_and_1_and_ignores_order(words):
    found = token_entropy(" ".join(words))
    assert -1e-12 <= found <= 1 + 1e-12
    assert token_entropy(", ".join(words[::-1]).upper()) == pytest.approx(found)


def test_t40_the_language_score_is_a_harmonic_mean():
    assert language_score(10, 12, 1500) == pytest.approx(0.119997, abs=1e-6)
    terms = 1 / 11, 1 / 13, 1500 / 1501
    assert sum(terms) / 3 == pytest.approx(0.389055, abs=1e-6)


def test_the_language_score_is_zero_where_a_term_is():
    assert language_score(math.inf, 12, 1500) == 0
    assert language_score(10, 12, 0) == 0


def test_brunet_and_honore_by_hand():
    text = "The house, the garden and the sea."  # N 7, V 5, V1 4
    assert brunet(text) == pytest.approx(7 ** (5**-0.165))
    assert honore(text) == pytest.approx(100 * math.log(7) / (1 - 4 / 5 + 0.1))
    assert brunet("one") == 1
    assert honore("one") == 0


@pytest.mark.parametrize("metric", [brunet, honore])
def test_an_empty_text_has_no_richness(metric):
    with pytest.raises(WagleError, match="at least one word"):
        metric(" ... ")


def test_t46_closer_look_efficacy():
    assert closer_look_efficacy(0.3, 0.2, 0.6, 0.4, 0.1) == pytest.approx(0.72)


def test_repetition_counts_four_grams_seen_before():
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)  # abcd comes twice
    assert repetition("a b c d e f") == 0
    assert repetition("a b c") == repetition("") == 0
    assert repetition("a a a a a") == 0.5


def test_text_is_cut_at_the_earliest_stop_string():
    text = "Oslo\nQuestion: who?\n\nQuestion: where?"
    assert cut_at(text, ["\n\n", "\nQuestion", "Question:"]) == "Oslo"
    assert cut_at(text, ["\n\n"]) == "Oslo\nQuestion: who?"
    assert cut_at("\n\nOslo", ["\n\n"]) == ""
    assert cut_at(text, ["Bergen"]) == cut_at(text, []) == text


def test_an_empty_stop_string_is_refused():
    with pytest.raises(WagleError, match="stop string is empty"):
        cut_at("Oslo", [""])


def test_word_runs_ignore_case_and_punctuation():
    reference = "She wrote The Winter Garden in Oslo."
    assert longest_word_run(reference, "He read the winter, garden!") == 3
    assert longest_word_run(reference, "") == 0


def test_words_are_of_any_script():
    assert words("Émile's 北京, x_1!") == ["émile", "s", "北京", "x_1"]
