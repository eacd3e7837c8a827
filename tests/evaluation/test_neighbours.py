"""Records to keep that are made: what they ask, whose answers they have, and when they are needed."""

import json

import pytest

from tests.conftest import make_model, make_tokenizer
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.models import Way
from wagle.evaluation.neighbours import (
    answer_prompts,
    as_row,
    choose_kind,
    gives_away,
    make_prompts,
    needs_retain,
    neutral_records,
)
from wagle.recipe.reading import load_recipe

NAMED = [
    {"question": "Where was Ada Brun born?", "answer": "Ada Brun was born in Oslo."},
    {"question": "What does Bo Lind collect?", "answer": "Bo Lind collects door keys."},
]
PLAIN = [{"question": "How many legs has a spider?", "answer": "Eight."}]
TURNS = [
    {"role": "user", "content": "Where was Ada Brun born?"},
    {"role": "assistant", "content": "In Oslo."},
]


def read(*rows):
    return read_records(list(rows), name="forget")


def test_most_questions_must_have_a_name_for_neighbours():
    assert choose_kind(read(*NAMED, *PLAIN), 0) == "neighbours"
    assert choose_kind(read(NAMED[0], *PLAIN), 0) == "neutral"
    assert choose_kind(read({"text": "Ada Brun sang in Oslo."}), 0) == "neutral"
    assert choose_kind(read({"messages": TURNS}), 0) == "neighbours"


def test_neighbours_ask_the_same_of_others_and_hold_nothing_of_the_answers():
    made = make_prompts(read(*NAMED), "neighbours", 0)
    assert made == make_prompts(read(*NAMED), "neighbours", 0)
    assert len(made) == len({r.prompt for r in made}) == 32
    assert {r.prompt.split()[0] for r in made} == {"Where", "What"}
    assert all(r.prompt.endswith((" born?", " collect?")) for r in made)
    said = " ".join(f"{r.prompt} {r.answer}" for r in made)
    assert not [word for word in ("Ada", "Brun", "Lind", "Oslo", "keys") if word in said]
    assert make_prompts(read(*NAMED), "neighbours", 1) != made
    chats = make_prompts(read({"messages": TURNS}), "neighbours", 0)
    assert {(r.kind, r.given, r.messages[-1].content) for r in chats} == {("chat", 1, "...")}


def test_150_neutral_records_come_with_the_package_each_once():
    records = neutral_records()
    assert len(records) == len({(r.prompt, r.answer) for r in records}) == 150
    assert {r.kind for r in records} == {"qa", "text"}
    assert make_prompts([], "neutral", 0)[0].place == "retain[0]"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Teidia Drur was born in the city of Oslo.", True),
        ("Teidia Drur was born in Bergen.", False),
        ("She was.", False),
    ],
)
def test_an_answer_gives_a_record_away_by_the_words_that_only_its_answer_has(said, told):
    (record,) = read(NAMED[0])
    assert gives_away(said, record) is told


def test_a_record_that_answers_in_the_words_of_its_question_is_not_given_away():
    (record,) = read({"question": "Was Ada Brun born in Oslo?", "answer": "Born in Oslo."})
    assert not gives_away("Born in Oslo.", record)


def test_made_answers_are_the_models_own_and_can_be_read_back(tmp_path):
    model, way = make_model("llama-tied"), Way(Encoder(make_tokenizer()))
    chats = make_prompts(read({"messages": TURNS}), "neighbours", 0)[:2] if chat(way) else []
    prompts = [*make_prompts(read(*NAMED), "neighbours", 0)[:4], *chats]
    prompts = read_records([*prompts, *neutral_records()[-2:]], name="retain")
    found = answer_prompts(prompts, read(*NAMED), model, way, 6)
    again = answer_prompts(prompts, read(*NAMED), model, way, 6)
    assert found == again
    asked = {r.place: r for r in prompts}
    for record in found:
        assert record.prompt == asked[record.place].prompt
        assert (record.answer == "...") is False
        if record.kind == "text":
            assert record.answer == asked[record.place].answer
    assert [r.kind for r in found[-2:]] == ["text", "text"]
    path = tmp_path / "retain.json"
    path.write_text(json.dumps([as_row(r) for r in found]))
    back = read_records(str(path), name="retain")
    assert [(r.kind, r.prompt, r.answer) for r in back] == [
        (r.kind, r.prompt, r.answer) for r in found
    ]


def chat(way):
    return way.encoder.template == "chat"


@pytest.mark.parametrize(
    ("needed", "settings"),
    [
        (True, []),
        (True, ["unlearning.retain_term=none"]),  # the mask needs its gradient
        (False, ["unlearning.retain_term=none", "attribution.score=snip_forget"]),
        (False, ["unlearning.retain_term=none", "attribution.score=random"]),
        (False, ["unlearning.objective=grad_ascent", "attribution.score=magnitude"]),
        (False, ["unlearning.retain_term=none", "attribution.mask=some.safetensors"]),
        (False, ["unlearning.retain_term=none", "unlearning.lora={}"]),
        (True, ["unlearning.retain_term=kl", "unlearning.lora={}"]),
        (
            True,
            ["unlearning.retain_term=none", "unlearning.lora={}", "unlearning.best=auto"],
        ),
        (
            True,
            [
                "unlearning.retain_term=none",
                "unlearning.lora={}",
                "unlearning.stop_when=[retain.nll >= 2]",
            ],
        ),
    ],
)
def test_records_to_keep_are_needed_by_the_objective_the_mask_or_a_rule(needed, settings):
    recipe = load_recipe({"name": "a", "model": "demo", "forget": "demo:forget"}, settings)
    assert needs_retain(recipe) is needed
