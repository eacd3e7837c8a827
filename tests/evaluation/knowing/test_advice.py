"""The cheapest right way for each verdict, its command line and its cost."""

import yaml

from wagle.evaluation.knowing.advice import Case, advise
from wagle.evaluation.knowing.asking import Speed
from wagle.evaluation.knowing.deciding import BASE_KNOWS, KNOWS, UNCLEAR, UNKNOWN
from wagle.recipe.reading import load_recipe


def _case(**changes):
    given = {
        "model": "served",
        "base": None,
        "adapter": None,
        "forget": "one customer.jsonl",
        "records": None,
        "count": 10,
        "tokens": 400,
        "taught": None,
        "weights": 1000,
        "bytes": 4000,
        "adapter_bytes": 50,
        "speed": Speed(tokens=1000, seconds=2.0),
    }
    return Case(**{**given, **changes})


def _ways(*asked):
    return [remedy.what for remedy in advise(*asked)]


def test_what_is_advised_first_is_the_cheapest_that_is_right():
    lora = _case(base="llama", adapter="lora")
    assert _ways(UNKNOWN, None, lora) == ["nothing"]
    assert _ways(UNCLEAR, UNKNOWN, lora) == ["ask again"]
    assert _ways(KNOWS, UNKNOWN, lora) == ["retrain the adapter", "unlearn"]
    assert _ways(KNOWS, UNCLEAR, lora) == ["unlearn", "retrain the adapter"]
    assert _ways(BASE_KNOWS, KNOWS, lora) == ["unlearn"]
    assert _ways(KNOWS, None, _case()) == ["unlearn"]
    (found,) = advise(BASE_KNOWS, KNOWS, lora)
    assert "would leave what the base knows" in found.why


def test_the_command_line_names_what_was_given():
    found = advise(KNOWS, UNKNOWN, _case(base="llama", adapter="lora", records="all.jsonl"))[0]
    assert found.commands == (
        "wagle retrain-adapter llama --adapter lora --records all.jsonl --forget "
        "'one customer.jsonl' -o lora-retrained",
    )
    on_top = advise(KNOWS, UNKNOWN, _case(adapter="lora"))[0]
    assert "retrain-adapter served --adapter lora --records RECORDS" in on_top.commands[0]


def test_the_recipe_can_be_read_and_has_the_base_as_reference_only_if_it_knows_nothing():
    found = advise(KNOWS, UNKNOWN, _case(base="llama"))[0]
    recipe = load_recipe(yaml.safe_load(found.recipe))
    assert (recipe.model.path, recipe.reference) == ("served", "llama")
    assert recipe.forget.source == "one customer.jsonl"
    knowing = advise(BASE_KNOWS, KNOWS, _case(base="llama"))[0]
    assert load_recipe(yaml.safe_load(knowing.recipe)).reference is None
    on_top = advise(KNOWS, UNKNOWN, _case(adapter="lora"))[1]
    recipe = load_recipe(yaml.safe_load(on_top.recipe))
    assert (recipe.model.path, recipe.model.adapter, recipe.reference) == (
        "served",
        "lora",
        "served",
    )


def test_costs_follow_from_the_speed():
    # 10 records of 40 tokens: retraining on 90 others, 5 epochs, three times 2 ms a token
    found = advise(KNOWS, UNKNOWN, _case(adapter="lora", taught=90))
    assert found[0].seconds == 3 * 5 * 90 * 40 * 0.002
    assert found[0].bytes == 50
    # 5 epochs of pairs and a gradient pass over 1 + 4, three times; twelve evaluations
    assert found[1].seconds == (3 * (5 * 2 + 5) + 12) * 400 * 0.002
    assert found[1].bytes == 8 * 1000 + 2 * 4000
    assert advise(KNOWS, UNKNOWN, _case(adapter="lora"))[0].per == "1,000 records, 5 epochs"
