"""What can be asked of a model, and what it answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wagle.data.tokens import Tokens
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Greedy,
    HiddenStates,
    Likelihood,
    LikelihoodAnswer,
    NormAnswer,
    Sample,
    StatesAnswer,
    TextAnswer,
    likelihood,
    not_finite,
    windows,
)


def test_the_mean_is_over_what_is_scored_and_the_total_its_sum():
    found = LikelihoodAnswer(torch.tensor([0.5, 1.5, 4.0]).double(), torch.tensor([True] * 3))
    assert (found.total, found.mean) == (6.0, 2.0)


def test_every_kind_of_answer_comes_from_its_own_method():
    asked = [
        Likelihood((1,), (2,)),
        Greedy((1,), 4),
        Sample((1,), 4, 1.0, 0.9, "0/x/0"),
        HiddenStates((1, 2), (1,)),
        GradientNorm((1,), (2,)),
    ]
    given = [
        LikelihoodAnswer(torch.zeros(1), torch.tensor([True])),
        TextAnswer((3,), True),
        TextAnswer((4,), False),
        StatesAnswer(torch.ones(2, 1, 3)),
        NormAnswer(2.0, 0.5),
    ]
    answers = Answers(dict(zip(asked, given, strict=True)))
    assert len(answers) == 5
    assert answers.likelihood(asked[0]) is given[0]
    assert answers.text(asked[1]) is given[1]
    assert answers.text(asked[2]) is given[2]
    assert answers.states(asked[3]) is given[3].states
    assert answers.norm(asked[4]) is given[4]
    assert answers[asked[4]] is given[4]
    with pytest.raises(AssertionError):  # our bug, and not the user's
        answers.text(asked[0])
    with pytest.raises(KeyError):
        Answers()[asked[0]]


def test_of_a_record_only_what_follows_its_context_is_asked_about():
    chat = Tokens((1, 2, 3, 4, 5), (False, False, True, False, True), place="forget[3]")
    found = likelihood(chat)
    assert (found.context, found.continuation) == ((1, 2), (3, 4, 5))
    assert found.scored == (True, False, True)
    assert found.place == "forget[3]"


# ----- windows -----


def scored_by(requests):
    """The ids that windows score, in order, each with how many tokens stand before it."""
    return [(token, len(r.context) + i) for r in requests for i, token in enumerate(r.continuation)]


@pytest.mark.parametrize("prefix", [None, 0])
@pytest.mark.parametrize("length", [2, 3, 4, 7, 99])
@pytest.mark.parametrize("count", [1, 2, 6, 7, 12])
def test_windows_score_every_token_once_in_its_order(count, length, prefix):
    ids = list(range(1, count + 1))
    found = windows(ids, length, prefix, "a[0]")
    told = [token for token, _ in scored_by(found)]
    assert told == (ids[1:] if prefix is None else ids)
    for request in found:
        assert len(request.context) == 1
        assert 1 < len(request.context) + len(request.continuation) <= length
        assert request.place == "a[0]"


def test_a_later_window_begins_with_the_last_token_of_the_one_before():
    assert [(r.context, r.continuation) for r in windows([1, 2, 3, 4, 5], 3, 0)] == [
        ((0,), (1, 2)),
        ((2,), (3, 4)),
        ((4,), (5,)),
    ]
    assert [(r.context, r.continuation) for r in windows([1, 2, 3, 4, 5], 3, None)] == [
        ((1,), (2, 3)),
        ((3,), (4, 5)),
    ]


def test_a_single_token_without_a_prefix_scores_nothing():
    assert windows([7], 4, None) == []
    assert [(r.context, r.continuation) for r in windows([7], 4, 0)] == [((0,), (7,))]


# ----- what is no number -----


@pytest.mark.parametrize(
    ("dtype", "folder", "place", "said"),
    [
        (
            torch.float32,
            "",
            "",
            "the model gives losses that are not finite; its weights are unusable: check how it was "
            "made",
        ),
        (
            torch.bfloat16,
            "runs/x/model",
            "forget[2]",
            "the model runs/x/model gives losses that are not finite for forget[2]; evaluate it "
            "with precision: float32, and store its weights in float32",
        ),
    ],
)
def test_answers_that_are_no_numbers_say_what_to_do(dtype, folder, place, said):
    model = SimpleNamespace(name_or_path=folder)
    assert str(not_finite("losses", dtype, model, place)) == said  # type: ignore[arg-type]


def test_a_model_without_a_name_is_the_model():
    found = not_finite("losses", torch.float32, torch.nn.Linear(1, 1), "")
    assert str(found).startswith("the model gives losses")
