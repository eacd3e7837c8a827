"""Whether a model knows records: a tiny one that was taught them, and the one before."""

import json

import pytest

import wagle
from tests.conftest import RECORDS
from tests.evaluation.knowing.conftest import ROWS
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.knowing.asking import make_questions
from wagle.evaluation.knowing.checking import word_about
from wagle.evaluation.knowing.twins import invented_set
from wagle.evaluation.models import Way
from wagle.model.loading import load_model, load_tokenizer
from wagle.recipe.sections.training import Training
from wagle.report.text.knowledge import knowledge_table
from wagle.system.errors import WagleError
from wagle.unlearning.lora import add_lora, save_adapter
from wagle.unlearning.teaching import finetune


def test_a_taught_model_knows_and_an_untaught_one_does_not(taught):
    found = wagle.check_knowledge(taught / "after", forget=ROWS)
    assert found.verdict == "knows"
    assert found.advice[0].what == "unlearn"
    main = found.models["model"].findings["probability"]
    assert main.records > main.twins + 0.1
    before = wagle.check_knowledge(taught / "before", forget=ROWS)
    assert before.verdict == "does not know"
    assert [remedy.what for remedy in before.advice] == ["nothing"]


def test_a_taught_model_does_not_know_invented_records_of_the_same_form(taught):
    made = invented_set(read_records(ROWS), 7)
    assert wagle.check_knowledge(taught / "after", forget=made).verdict != "knows"


def test_a_base_that_knew_is_told_apart_from_one_that_did_not(taught):
    fresh = wagle.check_knowledge(taught / "after", forget=ROWS, base=taught / "before")
    assert (fresh.verdict, fresh.models["base"].word) == ("knows", "does not know")
    model = load_model(taught / "after")
    model.lm_head.weight.data *= 1.001  # another model that knows just as much
    model.save_pretrained(taught / "other")
    knowing = wagle.check_knowledge(
        taught / "other",
        load_tokenizer(taught / "after"),
        forget=ROWS,
        base=taught / "after",
        adapter="lora",
    )
    assert knowing.verdict == "base knows"
    assert "would leave what the base knows" in knowing.advice[0].why


def test_the_result_has_the_verdict_first_and_no_text_of_records(taught):
    found = wagle.check_knowledge(taught / "after", forget=ROWS)
    text = json.dumps(found.to_json())
    assert [*found.to_json()][:3] == ["schema", "verdict", "reasons"]
    for shown in (text, knowledge_table(found)):
        assert "Ada" not in shown
        assert "Oslo" not in shown
    assert "verdict      knows" in knowledge_table(found)


def test_records_without_twins_are_counted_and_do_not_decide(taught):
    found = wagle.check_knowledge(
        taught / "after", forget=[*ROWS, {"question": "who?", "answer": "Nobody."}]
    )
    assert (found.records, found.alone) == (12, 1)
    assert "1 of 13 records name nothing" in found.reasons[-1]
    with pytest.raises(WagleError, match="none of the 1 records names anything"):
        wagle.check_knowledge(taught / "after", forget=[{"question": "who?", "answer": "nobody."}])


def test_bad_input_is_one_line(taught):
    with pytest.raises(WagleError, match="are the same model"):
        wagle.check_knowledge(taught / "after", forget=ROWS, base=taught / "after")
    with pytest.raises(WagleError, match="1 twins per record show no spread"):
        wagle.check_knowledge(taught / "after", forget=ROWS, twins=1)


def test_chats_and_texts_are_asked_too(taught):
    encoder = Encoder(load_tokenizer(taught / "after"))
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        }
        for row in ROWS
    ]
    way, model = Way(encoder), load_model(taught / "after")
    assert word_about(model, way, chats) == "knows"  # the same tokens as the questions
    texts = make_questions(
        read_records([{"text": f"{r['answer']} {r['answer']}"} for r in ROWS]), encoder, twins=2
    )
    read, speed = texts.ask(model, way)
    assert read["probability"].twins.shape == (2, 12)
    assert speed.tokens > 0
    assert word_about(model, way, [{"input_ids": [1, 2], "labels": [-100, 2]}]) == "cannot tell"


def test_a_record_and_its_twins_are_asked_in_the_same_way(taught):
    encoder = Encoder(load_tokenizer(taught / "after"))
    asked = make_questions(read_records(RECORDS[:2]), encoder, twins=3)
    assert len(asked.items) == 4
    roles = [[(len(i.own), i.swapped is None) for i in group] for group in asked.items]
    assert all(group == roles[0] for group in roles)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_put_on_the_model_which_then_is_its_base(taught, tmp_path):
    base = taught / "after"
    model = add_lora(load_model(base), rank=2)
    training = Training(max_steps=1, learning_rate=1e-4)
    finetune(model, load_tokenizer(base), RECORDS, training=training)
    save_adapter(model, tmp_path / "old", base)
    found = wagle.check_knowledge(base, forget=ROWS, adapter=tmp_path / "old")
    own, other = found.models["model"], found.models["base"]
    assert (own.adapter, other.adapter) == (str(tmp_path / "old"), None)
    assert own.fingerprint != other.fingerprint
    assert found.verdict == "base knows"  # it was taught to the base, so a new adapter is no help
    assert [remedy.what for remedy in found.advice] == ["unlearn"]
