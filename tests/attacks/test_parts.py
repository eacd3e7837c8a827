"""What attacks are made of: which records they ask, how many, and what the answers say."""

from __future__ import annotations

import re

import pytest

from tests.conftest import make_tokenizer
from wagle.attacks.parts import (
    as_series,
    ask_once,
    at_most,
    flat,
    question_contexts,
    those_that_ask,
)
from wagle.attacks.shapes import ATTACKED, Scene, Series
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Figure, Measured, Task, Written
from wagle.system.errors import WagleError

QUESTIONS = read_records(
    [{"question": f"Who is {i}?", "answer": f"It is {i}."} for i in range(12)], name="forget"
)
TEXTS = read_records([{"text": f"A text {i}."} for i in range(2)], name="forget")


def figure(value):
    return Figure(value, None, "none")


# ----- which records -----


def test_those_that_ask_are_kept_in_their_order():
    mixed = [TEXTS[0], QUESTIONS[0], TEXTS[1], QUESTIONS[1]]
    assert those_that_ask(mixed, "mine") == [QUESTIONS[0], QUESTIONS[1]]
    assert those_that_ask(mixed, "mine", kinds=("text",)) == TEXTS


def test_where_none_asks_the_first_is_named_with_its_kind():
    said = "the attack mine needs questions with answers; forget[0] is of the kind 'text', and so"
    with pytest.raises(WagleError, match=re.escape(said)):
        those_that_ask(TEXTS, "mine")


def test_a_limit_draws_some_of_the_records_by_seed_and_record():
    some = at_most(5, QUESTIONS, 3)
    assert len(some) == 5
    assert all(record in QUESTIONS for record in some)  # under their own places
    assert at_most(5, QUESTIONS, 3) == some
    assert {r.id for r in at_most(5, QUESTIONS[::-1], 3)} == {r.id for r in some}
    assert at_most(5, QUESTIONS, 4) != some


@pytest.mark.parametrize("limit", [12, 13])
def test_a_limit_that_is_no_limit_takes_all_as_they_stand(limit):
    found = at_most(limit, QUESTIONS, 3)
    assert found == QUESTIONS
    assert found is not QUESTIONS


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_nothing_is_refused(limit):
    with pytest.raises(WagleError, match=f"limit is {limit}; use at least one record"):
        at_most(limit, QUESTIONS, 3)


def test_the_context_of_a_question_is_all_before_its_answer():
    encoder = Encoder(make_tokenizer())
    found = question_contexts(encoder, QUESTIONS[:2], "mine")
    for record, ids in zip(QUESTIONS, found, strict=False):
        tokens = encoder.encode([record])[0]
        assert ids == tokens.ids[: tokens.scored.index(True)]


def test_contexts_need_records_that_are_questions():
    encoder = Encoder(make_tokenizer())
    with pytest.raises(WagleError, match="the attack mine needs at least one record"):
        question_contexts(encoder, [], "mine")
    with pytest.raises(WagleError, match=r"forget\[1\] is of the kind 'text'$"):
        question_contexts(encoder, [QUESTIONS[0], TEXTS[1]], "mine")


# ----- what the answers say -----


def test_figures_stand_flat_under_set_and_name():
    one, two, three = map(figure, (1.0, 2.0, 3.0))
    found = Measured({"forget": {"a": one, "b": two}, "retain": {"a": three}})
    assert flat(found) == {"forget.a": one, "forget.b": two, "retain.a": three}
    assert flat(Measured({})) == {}


def test_several_states_are_a_series_from_the_model_as_it_is():
    said = [Written("forget[0]", "q", "a", "s", True)]
    one, two = figure(1.0), figure(2.0)
    found = as_series(
        {
            "as it is": Measured({"forget": {"a": one}}, {"forget": said}),
            "int8": Measured({"forget": {"a": two}}),
        }
    )
    assert found.states == {"as it is": {"forget.a": one}, "int8": {"forget.a": two}}
    assert found.start == "as it is"
    assert found.texts == {"as it is, forget": said}


class Way:
    """Asks nothing and finds what it was given."""

    def __init__(self, found):
        self.found, self.asked = found, []

    def ask(self, model, task):
        self.asked.append((model, task))
        return self.found


@pytest.mark.parametrize("start", [None, "plain"])
def test_an_attack_that_only_asks_has_a_state_per_set_and_says_what_it_asked(start):
    said = {"plain": [Written("forget[0]", "q", "a", "s", True)]}
    way = Way(Measured({"plain": {"a": figure(1.0)}}, said))
    task = Task([], lambda _: way.found, data={"records": 3})
    found = ask_once(Scene(way, {}), task, start)("the model")  # type: ignore[arg-type]
    assert way.asked == [("the model", task)]
    assert (found.states, found.texts, found.start) == (way.found.figures, said, start)
    assert found.details == {"asked": {"records": 3}}
    assert found.details["asked"] is not task.data  # which the file may add to


# ----- what they are given -----


def test_a_scene_gives_the_sets_that_it_has_and_names_the_attack_that_lacks_one():
    scene = Scene(None, {"forget": QUESTIONS, "retain": []})  # type: ignore[arg-type]
    assert scene.need("forget", "mine") is QUESTIONS
    assert scene.need("retain", "mine") == []  # it is there, however small
    said = "the attack mine needs a general set; add one to the recipe"
    with pytest.raises(WagleError, match=said):
        scene.need("general", "mine")


def test_the_unlearned_model_is_attacked_first():
    assert ATTACKED == ("after", "before", "reference")


def test_two_series_do_not_share_what_they_were_not_given():
    one, other = Series({}), Series({})
    assert one.texts is not other.texts
    assert one.details is not other.details
