"""The table of attacks: every entry on a tiny taught model, with the settings of its own test."""

import inspect
import json
import re
import sys
from dataclasses import replace

import pytest
import torch

import wagle
from tests.attacks.cases import CASES, SMALL
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.attacks.effects import effects
from wagle.attacks.page import attacks_page
from wagle.attacks.shapes import Scene
from wagle.attacks.table import ATTACKS, make_attack
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.models import Way
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError

TOKENIZER = make_tokenizer()
FORGET = [
    {
        **row,
        "paraphrased_question": f"{row['question']} Tell me.",
        "decomposed_questions": ["Who?", "What?"],
        "translated_questions": ["Hvem?"],
        "perturbed_answer": ["A horse."],
    }
    for row in RECORDS
]


@pytest.fixture(scope="module")
def taught():
    model = make_model("llama-tied")
    training = Training(epochs=25, learning_rate=1e-2, batch_size=6)
    wagle.finetune(model, TOKENIZER, FORGET, training=training)
    return model


@pytest.fixture(scope="module")
def scene():
    sets = {"forget": FORGET, "retain": OTHERS[:4], "general": OTHERS[4:]}
    records = {name: read_records(rows, name=name) for name, rows in sets.items()}
    return Scene(Way(Encoder(TOKENIZER)), records)


def without(scene, *names):
    return replace(scene, sets={n: r for n, r in scene.sets.items() if n not in names})


# ---------------------------------------------------------------------------------------------
# Every attack


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_setting_stands_in_the_docstring_and_with_its_default_on_the_page(name):
    args = inspect.getdoc(ATTACKS[name]).partition("Args:")[2]
    section = attacks_page().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for key, parameter in inspect.signature(ATTACKS[name]).parameters.items():
        assert re.search(rf"^ +{key}: ", args, re.M), key
        if key != "scene":
            default = parameter.default
            shown = default if isinstance(default, str) else json.dumps(default)
            assert f"| `{key}` | `{shown}` |" in section


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_leaves_the_model_as_it_was_and_finds_the_same_again(scene, taught, name):
    before = {n: p.clone() for n, p in taught.named_parameters()}
    trial = make_attack(name, scene, SMALL[name])
    found = trial(taught)
    assert (list(found.states), found.start) == (CASES[name].STATES, CASES[name].START)
    for figures in found.states.values():
        assert figures
        assert all(figure.value is not None and figure.n for figure in figures.values())
    for parameter_name, parameter in taught.named_parameters():
        assert torch.equal(parameter, before[parameter_name])
    again = trial(taught)
    assert again.states == found.states
    assert again.texts == found.texts


def test_relearning_looks_at_what_was_taught_and_at_what_was_held_out(scene):
    untaught = make_model("llama-tied")
    found = make_attack("relearning", scene, SMALL["relearning"])(untaught)
    first, last = found.states["step 0"], found.states["step 3"]
    assert (first["forget.probability"].n, first["held_out.probability"].n) == (6, 3)
    assert last["forget.probability"].value > first["forget.probability"].value
    assert found.details["taught"] == 3
    assert len(found.details["losses"]) == 3
    assert set(first["held_out.probability"].per_record) < set(
        first["forget.probability"].per_record
    )


def test_benign_relearning_teaches_retain_records_and_holds_out_nothing_less(scene, taught):
    settings = {**SMALL["relearning"], "records": "benign"}
    found = make_attack("relearning", scene, settings)(taught)
    assert {name.partition(".")[0] for name in found.states["step 0"]} == {"forget"}
    assert found.details["taught"] == 3


def test_several_rates_give_a_curve_each_from_the_same_first_look(scene, taught):
    def found(rate):
        return make_attack("relearning", scene, {**SMALL["relearning"], "learning_rate": rate})(
            taught
        )

    several, one = found(["5e-4", 5e-3]), found(5e-3)
    assert several.start == "step 0"
    assert list(several.states) == [
        "step 0",
        *(f"{rate}, step {step}" for rate in ("0.0005", "0.005") for step in (1, 3)),
    ]
    for state, figures in one.states.items():
        assert several.states["step 0" if state == "step 0" else f"0.005, {state}"] == figures
    assert several.states["0.0005, step 3"] != several.states["0.005, step 3"]
    assert several.details["losses"]["0.005"] == one.details["losses"]
    assert [*several.details["losses"]] == ["0.0005", "0.005"]
    assert [*effects({"after": several})] == [*several.states][1:]


def test_benign_records_may_come_from_a_file(scene, taught, tmp_path):
    path = tmp_path / "unrelated.jsonl"
    rows = [{"question": f"Is it {i}?", "answer": f"Yes, {i}."} for i in range(4)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    settings = {**SMALL["relearning"], "records": str(path)}
    found = make_attack("relearning", without(scene, "retain"), settings)(taught)
    assert {name.partition(".")[0] for name in found.states["step 0"]} == {"forget"}
    assert found.details["taught"] == 3
    with pytest.raises(WagleError, match="asks for 6 benign ones, and there are 4"):
        make_attack("relearning", scene, {**settings, "share": 1.0})
    path.write_text(json.dumps([*rows[:3], RECORDS[1]]))
    with pytest.raises(WagleError, match=r"forget\[1\] and benign\[3\] are the same record"):
        make_attack("relearning", scene, settings)


def test_a_limit_draws_records_under_their_own_places(scene, taught):
    found = make_attack("relearning", scene, {**SMALL["relearning"], "limit": 2})(taught)
    own = {record.place for record in scene.sets["forget"]}
    assert found.states["step 0"]["forget.nll"].n == 2
    assert set(found.states["step 0"]["forget.nll"].per_record) < own
    sampled = make_attack("sampling", scene, SMALL["sampling"])(taught)
    assert len(sampled.texts["forget"]) == 4
    assert {text.place for text in sampled.texts["forget"]} < own


def test_quantization_asks_about_every_set_or_those_that_are_named(scene, taught):
    for named, asked in ((None, {"forget", "retain", "general"}), (["retain"], {"retain"})):
        settings = {"methods": ["int8"], "sets": named}
        found = make_attack("quantization", scene, settings)(taught)
        assert {name.partition(".")[0] for name in found.states["int8"]} == asked
        assert found.states["int8"] != found.states["as it is"]


def test_prompts_take_other_questions_from_the_records(scene, taught):
    settings = {"attacks": ["decomposed", "translation"], "max_new_tokens": 2}
    texts = make_attack("prompts", scene, settings)(taught).texts
    assert {text.question for text in texts["decomposed"]} == {"Who?", "What?"}
    assert {text.question for text in texts["translation"]} == {"Hvem?"}


def test_the_probe_takes_groups_readings_and_a_holdout_file(scene, taught, tmp_path):
    holdout = tmp_path / "holdout.json"
    holdout.write_text(
        "\n".join(f'{{"question": "Is it {i}?", "answer": "Yes, {i}."}}' for i in range(6))
    )
    groups = {
        f"{name}[{i}]": str(i // 2) + name for name in ("forget", "holdout") for i in range(6)
    }
    settings = {"holdout": str(holdout), "groups": groups, "readings": ["forget_or_holdout"]}
    found = make_attack("probe", without(scene, "general"), settings)(taught)
    assert list(found.states) == ["forget_or_holdout"]
    assert found.details["asked"] == {
        "forget": 6,
        "holdout": 6,
        "readings": ["forget_or_holdout"],
    }
    del groups["holdout[5]"]
    with pytest.raises(WagleError, match=r"groups has no entry for holdout\[5\]"):
        make_attack("probe", scene, settings)


def test_the_holdout_set_of_the_recipe_is_the_probe_s_and_not_asked_about_after_quantisation(
    scene, taught
):
    new = read_records([{"text": f"Snow {i}."} for i in range(4)], name="holdout")
    chats = [{"question": f"Is it {i}?", "answer": f"Yes, {i}."} for i in range(4)]
    sets = {**scene.sets, "holdout": read_records(chats, name="holdout")}
    settings = {"readings": ["forget_or_holdout"]}
    found = make_attack("probe", replace(scene, sets=sets), settings)(taught)
    assert found.details["asked"]["holdout"] == 4
    sets = {"forget": scene.sets["forget"], "holdout": new}
    found = make_attack("quantization", replace(scene, sets=sets), {"methods": ["int8"]})(taught)
    assert not any(name.startswith(("holdout", "overall.auc")) for name in found.states["int8"])


# ---------------------------------------------------------------------------------------------
# What is missing or wrong is an error before any work


@pytest.mark.parametrize(
    ("name", "settings", "lacks", "message"),
    [
        *(
            (name, {}, "forget", f"the attack {name} needs a forget set; add one to the recipe")
            for name in ("relearning", "prompts", "probe", "sampling")
        ),
        ("relearning", {"records": "benign"}, "retain", "with benign records needs a retain set"),
        ("relearning", {"share": 0}, "", "share is 0"),
        ("relearning", {"limit": 0}, "", "limit is 0"),
        ("relearning", {"records": "some"}, "", "records is 'some', but there is no such file"),
        ("relearning", {"records": "bening"}, "", "did you mean 'benign'"),
        ("relearning", {"learning_rate": []}, "", r"learning_rate is \[\]; give one rate"),
        ("relearning", {"learning_rate": [1e-5, 1e-5]}, "", "or several that differ"),
        ("relearning", {"learning_rate": [1e-5, 0]}, "", "learning_rate is 0.0 and batch_size"),
        ("relearning", {"learning_rate": "fast"}, "", "relearning: learning_rate is 'fast'"),
        ("relearning", {"stpes": [0]}, "", "has no setting 'stpes'; did you mean 'steps'"),
        ("quantization", {"methods": ["int3"]}, "", "unknown quantisation 'int3'"),
        (
            "quantization",
            {"methods": []},
            "",
            "methods is empty; name some of fp4, int4, int8, nf4",
        ),
        ("quantization", {"group_size": 0}, "", "group_size is 0; give a number of weights"),
        ("quantization", {"sets": []}, "", "quantization has no sets to ask about"),
        ("quantization", {"sets": ["retain"]}, "retain", "quantization needs a retain set"),
        ("quantization", {"methods": "int8"}, "", "attack quantization: methods is 'int8'"),
        ("prompts", {"attacks": ["context"]}, "retain", "context needs neighbours"),
        ("prompts", {"decomposed": {}}, "", "attack prompts has no setting 'decomposed'"),
        ("probe", {}, "general", r"probe \(or the setting holdout\) needs a general set"),
        ("probe", {"holdout": "nowhere.json"}, "general", "data file nowhere.json does not exist"),
        ("probe", {"readings": ["choise"]}, "", "unknown reading 'choise'; did you mean 'choice'"),
        ("sampling", {"samples": 0}, "", "samples is 0"),
        ("sampling", {"max_new_tokens": 0}, "", "max_new_tokens is 0"),
        ("prompts", {"max_new_tokens": 0}, "", "max_new_tokens is 0"),
        ("sapling", {}, "", "unknown attack 'sapling'; did you mean 'sampling'"),
    ],
)
def test_what_an_attack_lacks_is_one_line_before_any_work(scene, name, settings, lacks, message):
    with pytest.raises(WagleError, match=message) as caught:
        make_attack(name, without(scene, lacks), settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "package"),
    [
        ("relearning", {"lora": True}, "peft"),
        ("quantization", {"methods": ["nf4"]}, "bitsandbytes"),
        ("quantization", {"methods": ["int8"]}, "torchao"),
        ("probe", {}, "scikit-learn"),
    ],
)
def test_a_package_that_an_attack_lacks_is_named_before_any_work(
    scene, monkeypatch, name, settings, package
):
    for module in ("peft", "bitsandbytes.nn", "torchao.quantization", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(WagleError, match=rf"needs? {package}: pip install 'wagle\["):
        make_attack(name, scene, settings)


def test_tools_that_gguf_lacks_are_named_before_any_work(scene, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WagleError, match=r"gguf needs convert_hf_to_gguf\.py and llama-quantize"):
        make_attack("quantization", scene, {"methods": ["gguf"]})


def test_groups_are_checked_against_the_shape_of_the_model_where_it_is_known(scene, model_folder):
    known = replace(scene, model=model_folder)
    make_attack("quantization", known, {"group_size": 16})
    make_attack("quantization", known, {"methods": ["int8"], "group_size": 7})
    make_attack("quantization", scene, {"group_size": 7})
    with pytest.raises(WagleError, match=r"32 inputs, which groups of 7 do not divide"):
        make_attack("quantization", known, {"group_size": 7})


@pytest.mark.parametrize("name", ["prompts", "probe", "sampling"])
def test_attacks_that_ask_questions_refuse_texts(scene, name):
    texts = read_records([{"text": "A story about a garden."}], name="forget")
    other = replace(scene, sets={**scene.sets, "forget": texts})
    with pytest.raises(WagleError, match=rf"{name} needs questions .*forget\[0\] is of the kind"):
        make_attack(name, other, {})


def test_chats_are_sampled_and_probed_but_not_asked_otherwise(scene):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Q {i}?"},
                {"role": "assistant", "content": "A."},
            ]
        }
        for i in range(3)
    ]
    chats = read_records(rows, name="forget")
    other = replace(scene, sets={**scene.sets, "forget": chats})
    make_attack("sampling", other, {"samples": 1})
    make_attack("probe", other, {})
    with pytest.raises(WagleError, match=r"prompts needs questions .*forget\[0\] is of the kind"):
        make_attack("prompts", other, {})
