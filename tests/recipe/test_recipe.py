"""Recipes: what is read, what is refused in which words, what comes back from a dump."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import wagle.recipe.reading
import wagle.recipe.recipe
from wagle.recipe.reading import dump_recipe, load_recipe, ready_recipes
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.base import section_of
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError

BARE = {"name": "trial", "model": "demo"}
GAMMA = (
    "it must be 'auto', 'curvature', a number above 0, {theta_share: 0.5} or "
    "{mu: 1.0e-6, accumulation: 4}"
)
TEACHES = {**BARE, "forget": "demo:forget", "finetune": {}}


def load(text: str, *overrides: str) -> Recipe:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return load_recipe("recipe.yaml", overrides)


def message(source, *overrides: str) -> str:
    with pytest.raises(WagleError) as caught:
        load_recipe(source, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def file_message(text: str | bytes, *overrides: str) -> str:
    raw = text if isinstance(text, bytes) else text.encode()
    Path("recipe.yaml").write_bytes(raw)
    return message("recipe.yaml", *overrides)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sections(model: type[BaseModel] = Recipe) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        inner = section_of(field.annotation)
        found += sections(inner) if inner else []
    return found


# ---------------------------------------------------------------------------------------------
# What is read


def test_two_lines_are_a_recipe_and_the_rest_are_defaults():
    recipe = load("name: trial\nmodel: demo\n")
    assert (recipe.name, recipe.seed, recipe.model.path) == ("trial", 0, "demo")
    assert (recipe.attribution.score, recipe.attribution.ratio) == ("wagle", None)
    assert (recipe.unlearning.objective, recipe.unlearning.learning_rate) == ("npo", 1e-5)
    assert (recipe.forget, recipe.finetune, recipe.reference) == (None, None, None)
    assert recipe.report.show_text is False


def test_finetune_decays_its_learning_rate_and_unlearning_does_not():
    recipe = load_recipe(TEACHES)
    assert recipe.finetune is not None
    assert (recipe.finetune.schedule, recipe.unlearning.schedule) == ("linear", "constant")
    assert (recipe.finetune.epochs, recipe.finetune.learning_rate) == (5, 1e-5)


def test_the_trainer_takes_both_training_sections_as_they_are():
    recipe = load_recipe(TEACHES)
    assert isinstance(recipe.finetune, Training)
    assert isinstance(recipe.unlearning, Training)


def test_a_bare_text_stands_for_a_section():
    recipe = load("name: trial\nmodel: models/small\nforget: demo:forget\n")
    assert recipe.model.path == "models/small"
    assert recipe.forget is not None
    assert recipe.forget.source == "demo:forget"


def test_a_section_left_empty_is_its_defaults():
    assert load("name: trial\nmodel: demo\nattribution:\n").attribution.scope == "auto"


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "'1e-5'", "0.00001", ".00001"])
def test_a_number_may_be_written_in_any_way(text):
    assert load_recipe(BARE, [f"unlearning.learning_rate={text}"]).unlearning.learning_rate == 1e-5


def test_numbers_of_optimizer_settings_are_numbers_though_no_field_says_so():
    settings = load_recipe(BARE, ["unlearning.optimizer_settings={eps: 1e-8}"]).unlearning
    assert settings.optimizer_settings == {"eps": 1e-8}


def test_an_objective_setting_in_exponent_notation_is_a_number():
    given = {**BARE, "unlearning": {"objective_settings": {"beta": "1e-2"}}}
    assert load_recipe(given).unlearning.objective_settings == {"beta": 0.01}


@pytest.mark.parametrize("rows", ["0:360", "20:40", "1:30", "':5'", "'20:'"])
def test_rows_are_a_range_and_never_minutes_and_seconds(rows):
    recipe = load(f"name: trial\nmodel: demo\nforget: {{source: a.json, rows: {rows}}}\n")
    assert recipe.forget is not None
    assert recipe.forget.rows == rows.strip("'")


@pytest.mark.parametrize(
    ("take", "kept"), [("all", "all"), ("20", 20), ("'20'", 20), ("10%", "10%"), ("100%", "100%")]
)
def test_take_is_all_or_a_count_or_a_percentage(take, kept):
    recipe = load_recipe(BARE, ["forget=demo:forget", f"forget.take={take}"])
    assert recipe.forget is not None
    assert recipe.forget.take == kept


@pytest.mark.parametrize(
    "gamma",
    [
        "auto",
        "curvature",
        0.5,
        {"theta_share": 0.25},
        {"mu": 1e-6},
        {"mu": 1e-6, "accumulation": 4, "records": 400},
    ],
)
def test_gamma_is_a_word_or_a_number_or_a_mapping(gamma):
    assert load_recipe({**BARE, "attribution": {"gamma": gamma}}).attribution.gamma == gamma


@pytest.mark.parametrize(
    "score",
    [
        "fisher",
        {"random_like": "runs/a/mask.safetensors"},
        {"complement": "mask.safetensors"},
        {"by_name": ["ffn", "*.q_proj.*"]},
    ],
)
def test_a_score_is_a_name_or_a_mapping_with_one_key(score):
    recipe = load_recipe({**BARE, "attribution": {"score": score}})
    assert recipe.attribution.score == score
    assert recipe.attribution.ratio is None
    assert load(dump_recipe(recipe)) == recipe


def test_a_score_can_be_set_key_by_key():
    override = ["attribution.score.random_like=mask.safetensors", "attribution.use=0.3"]
    settings = load_recipe({**BARE, "attribution": {"score": "wagle"}}, override).attribution
    assert (settings.score, settings.use) == ({"random_like": "mask.safetensors"}, 0.3)


def test_further_settings_of_attribution_are_read():
    given = {
        "damping": "1e-9",
        "score_settings": {"eps": "1e-9"},
        "scope": "row",
        "quantities": ["square_retain"],
        "engine": "stream",
        "device": "cpu",
    }
    settings = load_recipe({**BARE, "attribution": given}).attribution
    assert (settings.damping, settings.score_settings) == (1e-9, {"eps": 1e-9})
    assert (settings.scope, settings.quantities, settings.device) == (
        "row",
        ["square_retain"],
        "cpu",
    )


def test_a_ladder_names_the_ratio_to_train():
    settings = load_recipe(BARE, ["attribution={ratio: [0.05, 0.3, 1], use: 0.3}"]).attribution
    assert (settings.ratio, settings.use) == ([0.05, 0.3, 1.0], 0.3)


def test_a_ladder_of_one_needs_no_choice():
    assert load_recipe(BARE, ["attribution.ratio=[0.5]"]).attribution.ratio == [0.5]


def test_use_chooses_from_the_ladder_of_an_existing_mask():
    settings = load_recipe(BARE, ["attribution={mask: mask.safetensors, use: 0.1}"]).attribution
    assert (settings.mask, settings.use) == ("mask.safetensors", 0.1)


def test_retain_can_be_what_forget_left_out():
    recipe = load_recipe(BARE, ["forget=all.json", "forget.take=10%", "retain=complement"])
    assert recipe.retain is not None
    assert recipe.retain.source == "complement"


def test_membership_attacks_need_a_holdout_set():
    chosen = ["evaluation.attacks=[loss, min_k++]", "evaluation.k=[0.2, 0.4]"]
    recipe = load_recipe(BARE, [*chosen, "holdout=new.json"])
    assert recipe.holdout is not None
    assert (recipe.evaluation.attacks, recipe.evaluation.k) == (["loss", "min_k++"], [0.2, 0.4])
    for setting, message in (
        (chosen[0], "evaluation.attacks is for membership attacks, but the recipe has no holdout"),
        (chosen[1], "evaluation.k is for membership attacks, but the recipe has no holdout set"),
    ):
        with pytest.raises(WagleError, match=message):
            load_recipe(BARE, [setting])
    for setting in ("evaluation.attacks=[los]", "evaluation.attacks=[]", "evaluation.k=[1.5]"):
        with pytest.raises(WagleError, match=setting.partition("=")[0]):
            load_recipe(BARE, ["holdout=new.json", setting])
    with pytest.raises(WagleError, match="only retain can have that source"):
        load_recipe(BARE, ["forget=a.json", "holdout=complement"])


def test_sources_can_be_weighted():
    recipe = load_recipe(BARE, ["retain={source: [a.json, b.json], weights: [3, 1]}"])
    assert recipe.retain is not None
    assert recipe.retain.weights == [3.0, 1.0]


def test_finetune_teaches_every_set_that_the_recipe_has():
    sets = ["forget=demo:forget", "retain_heldout=demo:retain_heldout", "general=demo:general"]
    assert load_recipe(BARE, sets).taught_sets() == []
    assert load_recipe(BARE, [*sets, "finetune={}"]).taught_sets() == ["forget", "retain_heldout"]
    more = [*sets, "finetune.records=more.json"]
    assert load_recipe(BARE, more).taught_sets() == ["forget", "retain_heldout", "records"]
    chosen = [*sets, "finetune.sets=[retain_heldout]"]
    assert load_recipe(BARE, chosen).taught_sets() == ["retain_heldout"]


def test_paths_stay_as_they_are_written():
    Path("deep").mkdir()
    Path("deep/recipe.yaml").write_text("name: trial\nmodel: models/a\nforget: data.json\n")
    recipe = load_recipe(Path("deep/recipe.yaml"))
    assert recipe.forget is not None
    assert (recipe.model.path, recipe.forget.source) == ("models/a", "data.json")


def test_with_a_base_relative_paths_are_taken_from_it_and_words_stay():
    given = {
        **BARE,
        "reference": "untaught",
        "forget": {"source": ["demo:forget", "a.json", "/b.json"], "take": 3},
        "retain": "complement",
        "general": "demo:general",
        "finetune": {"records": "more.json"},
        "attribution": {"mask": "mask.safetensors"},
    }
    got = load_recipe(given, base=Path("/runs")).resolved()
    assert (got["model"]["path"], got["reference"]) == ("demo", "untaught")
    assert got["forget"]["source"] == ["demo:forget", "/runs/a.json", "/b.json"]
    assert (got["retain"]["source"], got["general"]["source"]) == ("complement", "demo:general")
    assert got["finetune"]["records"]["source"] == "/runs/more.json"
    assert got["attribution"]["mask"] == "/runs/mask.safetensors"
    given["attribution"] = {"score": {"random_like": "mask.safetensors"}}
    moved = load_recipe(given, base=Path("/runs")).attribution
    assert moved.score == {"random_like": "/runs/mask.safetensors"}
    given["attribution"] = {"score": {"by_name": ["ffn"]}}
    assert load_recipe(given, base=Path("/runs")).attribution.score == {"by_name": ["ffn"]}
    moved = load_recipe(BARE, ["model=models/a"], base=Path("/runs"))
    assert (moved.model.path, moved.reference) == ("/runs/models/a", None)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(BARE).seed = 3


# ---------------------------------------------------------------------------------------------
# Overrides


def test_an_override_wins_over_the_file_and_a_later_one_over_an_earlier():
    text = "name: trial\nmodel: demo\nattribution: {ratio: 0.1, score: random}\n"
    recipe = load(text, "attribution.ratio=0.2", "attribution.ratio=0.3", "report.show_text=true")
    assert (recipe.attribution.ratio, recipe.attribution.score) == (0.3, "random")
    assert recipe.report.show_text is True


def test_another_objective_leaves_out_the_settings_that_belong_to_the_recipes_own():
    own = {**BARE, "unlearning": {"objective": "ce_u", "retain_term": "nll"}}
    own["unlearning"]["objective_settings"] = {"skip": 0}
    same = load_recipe(own, ["unlearning.objective=ce_u"]).unlearning
    assert (same.objective_settings, same.retain_term) == ({"skip": 0}, "nll")
    other = load_recipe(own, ["unlearning.objective=npo", "unlearning.epochs=3"]).unlearning
    assert (other.objective_settings, other.retain_term, other.epochs) == ({}, "auto", 3)
    settings = ["unlearning.objective_settings={beta: 0.2}", "unlearning.objective=npo"]
    assert load_recipe(own, settings).unlearning.objective_settings == {"beta": 0.2}


def test_an_override_reaches_below_a_section_written_as_bare_text():
    recipe = load_recipe(
        {**BARE, "forget": "demo:forget"}, ["model.max_length=99", "forget.take=3"]
    )
    assert (recipe.model.path, recipe.model.max_length) == ("demo", 99)
    assert recipe.forget is not None
    assert (recipe.forget.source, recipe.forget.take) == ("demo:forget", 3)


def test_an_override_makes_the_section_that_is_absent_or_null():
    given = {**BARE, "forget": "demo:forget", "finetune": None, "unlearning": None}
    recipe = load_recipe(given, ["finetune.epochs=2", "unlearning.objective_settings.beta=0.2"])
    assert recipe.finetune is not None
    assert recipe.finetune.epochs == 2
    assert recipe.unlearning.objective_settings == {"beta": 0.2}


def test_an_override_takes_lists_mappings_null_and_values_with_an_equals_sign():
    recipe = load_recipe(
        {**BARE, "finetune": {}, "seed": 3},
        ["finetune=", "attribution.include=['*.mlp.*', head]", "model.system_prompt=a=b"],
    )
    assert recipe.finetune is None
    assert recipe.attribution.include == ["*.mlp.*", "head"]
    assert recipe.model.system_prompt == "a=b"
    assert load_recipe(BARE, ["attribution.gamma={theta_share: 0.3}"]) == load_recipe(
        BARE, ["attribution.gamma.theta_share=0.3"]
    )


def test_overrides_leave_the_given_dict_alone():
    given = {**BARE, "attribution": {"ratio": 0.1}}
    load_recipe(given, ["attribution.ratio=0.2", "model.max_length=9"])
    assert given == {**BARE, "attribution": {"ratio": 0.1}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "override 'seed' has no value; write seed=VALUE"),
        ("=3", "override '=3' names no setting; write it like attribution.ratio=0.5"),
        ("a..b=3", "override 'a..b=3' names no setting; write it like attribution.ratio=0.5"),
        (
            "attribution.include=[*mlp*]",
            "override 'attribution.include=[*mlp*]' is not valid YAML (expected alphabetic or "
            "numeric character, but found '*'; put text that begins with * in quotes)",
        ),
    ],
)
def test_an_override_that_cannot_be_read_is_named(override, said):
    assert message(BARE, override) == said


# ---------------------------------------------------------------------------------------------
# What is refused, and in which words


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("attribution.ratoi=0.5", "attribution.ratoi is not a setting; nearest: attribution.ratio"),
        ("ratio=0.5", "ratio is not a setting; nearest: attribution.ratio"),
        ("atribution.ratio=0.5", "atribution is not a setting; nearest: attribution"),
        ("unlearning.gama=1", "unlearning.gama is not a setting; nearest: attribution.gamma"),
        (
            "finetune.records.tak=1",
            "finetune.records.tak is not a setting; nearest: finetune.records.take",
        ),
        ("epoch=1", "epoch is not a setting; nearest: finetune.epochs or unlearning.epochs"),
        (
            "attribution.batch_size=1",
            "attribution.batch_size is not a setting; nearest: finetune.batch_size or "
            "unlearning.batch_size",
        ),
        (
            "unlearning.precison=a",
            "unlearning.precison is not a setting; nearest: unlearning.precision",
        ),
        ("zzzz=1", "zzzz is not a setting"),
    ],
)
def test_an_unknown_setting_names_the_nearest(override, said):
    given = {**TEACHES, "finetune": {"records": "more.json"}}
    assert message(given, override) == f"recipe: {said}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("attribution.ratio=1.5", "attribution.ratio is 1.5; it must be at most 1"),
        ("attribution.ratio=0", "attribution.ratio is 0; it must be above 0"),
        ("attribution.ratio=true", "attribution.ratio is true; it must be a number"),
        ("attribution.ratio=.nan", "attribution.ratio is nan; it must be a finite number"),
        ("attribution.ratio=[0.1, 1.5]", "attribution.ratio is [0.1, 1.5]; it must be at most 1"),
        ("attribution.ratio='inf'", "attribution.ratio is 'inf'; it must be a finite number"),
        (
            "unlearning.objective_settings.beta='nan'",
            "unlearning.objective_settings.beta is 'nan'; it must be a finite number",
        ),
        (
            "unlearning.learning_rate='inf'",
            "unlearning.learning_rate is 'inf'; it must be a finite number",
        ),
        (
            "attribution.ratio=[0.1, 0.1]",
            "attribution.ratio is [0.1, 0.1]; a ladder must ascend without repeats",
        ),
        ("attribution.ratio=[]", "attribution.ratio has 0 ratios; a ladder has 1 to 15"),
        (
            "attribution.ratio=[0.5, 0.1]",
            "attribution.ratio is [0.5, 0.1]; a ladder must ascend without repeats",
        ),
        ("unlearning.precision=bfloat", "unlearning.precision is 'bfloat'; nearest: 'bfloat16'"),
        ("overlap=no way", "overlap is 'no way'; it must be 'error' or 'allow'"),
        ("unlearning.learning_rate=true", "unlearning.learning_rate is true; it must be a number"),
        (
            "unlearning.learning_rate=fast",
            "unlearning.learning_rate is 'fast'; it must be a number",
        ),
        (
            "unlearning.learning_rate=.inf",
            "unlearning.learning_rate is inf; it must be a finite number",
        ),
        ("unlearning.weight_decay=-1", "unlearning.weight_decay is -1; it must be at least 0"),
        ("unlearning.epochs=0", "unlearning.epochs is 0; it must be at least 1"),
        ("unlearning.epochs=true", "unlearning.epochs is true; it must be a whole number"),
        ("unlearning.epochs=2.0", "unlearning.epochs is 2.0; it must be a whole number"),
        ("unlearning.dropout=1", "unlearning.dropout is 1; it must be true or false"),
        ("report.show_text=2", "report.show_text is 2; it must be true or false"),
        (
            "unlearning.wrapper_settings.rho=true",
            "unlearning.wrapper_settings.rho is true; it must be a number",
        ),
        (
            "attribution.gamma=atuo",
            f"attribution.gamma is 'atuo'; {GAMMA}",
        ),
        (
            "attribution.gamma=true",
            f"attribution.gamma is true; {GAMMA}",
        ),
        (
            "attribution.gamma.theta_share=2",
            "attribution.gamma.theta_share is 2; it must lie between 0 and 1",
        ),
        ("attribution.gamma={share: 1}", f"attribution.gamma is {{'share': 1}}; {GAMMA}"),
        (
            "attribution.gamma={accumulation: 4}",
            f"attribution.gamma is {{'accumulation': 4}}; {GAMMA}",
        ),
        ("attribution.gamma={mu: -1}", "attribution.gamma.mu is -1; it must be above 0"),
        ("attribution.gamma={mu: big}", "attribution.gamma.mu is 'big'; it must be a number"),
        (
            "attribution.gamma={mu: 1, records: 0.5}",
            "attribution.gamma.records is 0.5; it must be a whole number",
        ),
        (
            "attribution.damping=0",
            "attribution.damping is 0; it must be 'auto' or a number above 0",
        ),
        (
            "attribution.damping=low",
            "attribution.damping is 'low'; it must be 'auto' or a number above 0",
        ),
        ("attribution.scope=rows", "attribution.scope is 'rows'; nearest: 'row'"),
        ("attribution.device=gpu", "attribution.device is 'gpu'; nearest: 'cpu'"),
        (
            "attribution.quantities=[square_retian]",
            "attribution.quantities[0] is 'square_retian'; nearest: 'square_retain'",
        ),
        ("attribution.score=3", "attribution.score is 3; it must be text, so put it in quotes"),
        ("attribution.score=''", "attribution.score is ''; it must not be empty"),
        (
            "attribution.score={like: a}",
            "attribution.score is {'like': 'a'}; it must have exactly one of the keys random_like, complement, "
            "by_name",
        ),
        (
            "attribution.score={complement: [a]}",
            "attribution.score.complement is ['a']; it must be the path of a mask",
        ),
        (
            "attribution.score={by_name: ffn}",
            "attribution.score.by_name is 'ffn'; it must be a list, such as [ffn, '*.q_proj.*']",
        ),
        (
            "attribution.include=mlp",
            "attribution.include is 'mlp'; it must be a list, such as [a, b]",
        ),
        (
            "attribution.include=[3]",
            "attribution.include[0] is 3; it must be text, so put it in quotes",
        ),
        ("attribution=3", "attribution is 3; it must be a section: settings with their values"),
        ("model.max_length=7", "model.max_length is 7; it must be at least 8"),
        ("model.path=''", "model.path is ''; it must not be empty"),
        ("model=", "model.path is missing; every model needs it"),
        ("name=2024", "name is 2024; it must be text, so put it in quotes"),
        ("name=a b", "name is 'a b'; use letters, digits, '.', '_' and '-' only"),
        ("name=..", "name is '..'; it needs a letter or a digit"),
        ("seed=010", "seed is '010'; it must be a whole number"),
        ("seed=-1", "seed is -1; it must be at least 0"),
        ("forget.take=3", "forget.source is missing; every set of records needs it"),
        (
            "forget={source: []}",
            "forget.source is []; it must be a file, a folder, demo:SET, or a list of these",
        ),
        (
            "forget={source: a, take: 0.1}",
            "forget.take is 0.1, which could be a share or a count; write a share as 10%, "
            "a count as a whole number",
        ),
        (
            "forget={source: a, take: 101%}",
            "forget.take is '101%'; it must be all, a count above 0, or a whole percentage up to 100%",
        ),
        (
            "forget={source: a, take: 0}",
            "forget.take is 0; it must be all, a count above 0, or a whole percentage up to 100%",
        ),
        (
            "forget={source: a, rows: 360}",
            "forget.rows is 360; it must be text, so put it in quotes",
        ),
        (
            "forget={source: a, rows: first}",
            "forget.rows is 'first'; write FIRST:LAST, such as 0:360 or '20:'",
        ),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(override, said):
    assert message(BARE, override) == f"recipe: {said}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["reference=untaught"],
            "reference is 'untaught', the model before finetune; add finetune or name a model folder",
        ),
        (
            ["attribution.ratio=[0.1, 0.5]"],
            "attribution.use is missing; attribution.ratio is a ladder, so choose one to train: "
            "[0.1, 0.5]",
        ),
        (
            ["attribution={ratio: [0.1, 0.5], use: 0.2}"],
            "attribution.use is 0.2; it must be a ratio of the ladder: [0.1, 0.5]",
        ),
        (
            ["attribution.use=0.2"],
            "attribution.use is given, but attribution.ratio is not a ladder; remove it",
        ),
        (
            ["attribution={score: {by_name: [ffn]}, use: 0.2}"],
            "attribution.use is given, but attribution.ratio is not a ladder; remove it",
        ),
        (
            ["attribution={score: {random_like: m}, ratio: 0.8}"],
            "attribution.ratio is given, but attribution.score random_like determines its own; remove it",
        ),
        (
            ["attribution={score: {complement: m}, exclude: [norms]}"],
            "attribution.exclude is given, but attribution.score complement determines its own; remove it",
        ),
        (
            ["attribution={score: {by_name: [ffn]}, scope: row}"],
            "attribution.scope is given, but attribution.score by_name determines its own; remove it",
        ),
        (
            ["forget={source: [a, b], weights: [1, 2, 3]}"],
            "forget.weights has 3 numbers for 2 sources; give one per source",
        ),
        (
            ["forget={source: a, weights: [1]}"],
            "forget.weights is given, but there is only one source; give a list or remove it",
        ),
        (
            ["forget={source: [a, b], weights: [1, 0]}"],
            "forget.weights[1] is 0; it must be above 0",
        ),
        (
            ["general=complement"],
            "general.source is 'complement'; only retain can have that source",
        ),
        (
            ["forget=a", "finetune.records=complement"],
            "finetune.records.source is 'complement'; only retain can have that source",
        ),
        (
            ["retain={source: [complement, a]}"],
            "retain.source has 'complement' in a list; it can only stand alone",
        ),
        (
            ["forget=a", "retain=complement"],
            "retain.source is 'complement', but forget.take leaves no records out; set forget.take",
        ),
        (
            ["forget={source: a, take: 3}", "retain={source: complement, rows: '0:3'}"],
            "retain.rows cannot be set with source: complement; set forget.rows",
        ),
        (["finetune.epochs=2"], "finetune has nothing to teach; add forget or finetune.records"),
        (
            ["forget=a", "finetune.sets=[forget, retain]"],
            "finetune.sets[1] is 'retain', but the recipe has no retain",
        ),
        (
            ["forget=a", "finetune.sets=[records]"],
            "finetune.sets[0] is 'records', but the recipe has no finetune.records",
        ),
        (
            ["forget=a", "finetune={records: b, sets: [forget]}"],
            "finetune.sets leaves out 'records', but finetune.records is given",
        ),
        (
            ["forget=a", "finetune.sets=[forget, forget]"],
            "finetune.sets[1] repeats 'forget'; remove it",
        ),
        (["forget=a", "finetune.sets=[froget]"], "finetune.sets[0] is 'froget'; nearest: 'forget'"),
    ],
)
def test_settings_that_do_not_agree_are_named(overrides, said):
    assert message(BARE, *overrides) == f"recipe: {said}"


def test_the_first_problem_of_the_document_is_shown_and_the_others_counted():
    said = file_message(
        "report: {show_text: 3}\nattribution:\n  ratoi: 0.5\n  score: 3\nmodel: demo\n"
    )
    assert said == "recipe.yaml: report.show_text is 3; it must be true or false (and 3 more)"
    said = file_message("attribution:\n  ratoi: 0.5\n  score: 3\nmodel: demo\n")
    assert said == (
        "recipe.yaml: attribution.ratoi is not a setting; nearest: attribution.ratio (and 2 more)"
    )
    assert file_message("model: demo\n") == "recipe.yaml: name is missing; every recipe needs it"


def test_a_long_value_is_shown_short():
    said = message(BARE, f"seed={'x' * 500}")
    assert said == f"recipe: seed is '{'x' * 56}...; it must be a whole number"


def test_values_that_no_file_can_hold_are_refused():
    given = {**BARE, "unlearning": {"optimizer_settings": {"betas": (0.9, 0.99), "x": object()}}}
    assert message(given) == (
        "recipe: unlearning.optimizer_settings holds a object; a recipe holds text, numbers, "
        "lists and mappings"
    )


# ---------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "recipe.yaml is empty; a recipe needs at least name and model"),
        ("# nothing\n", "recipe.yaml is empty; a recipe needs at least name and model"),
        ("- a\n- b\n", "recipe.yaml holds ['a', 'b']; a recipe is a mapping, such as name: demo"),
        (
            "name: a\nmodel: b: c\n",
            "recipe.yaml, line 2, is not valid YAML (mapping values are not allowed here)",
        ),
        (
            "name: a\nmodel:\n\tpath: b\n",
            "recipe.yaml, line 3, is not valid YAML (found character '\\t' that cannot start any token)",
        ),
        (
            "name: a\n---\nname: b\n",
            "recipe.yaml, line 2, is not valid YAML (but found another document)",
        ),
        (
            "name: a\nattribution:\n  include: [*mlp]\n",
            "recipe.yaml, line 3, is not valid YAML (found undefined alias 'mlp'; put text that "
            "begins with * in quotes)",
        ),
        (
            "name: a\nmodel: !!python/name:os.system b\n",
            "recipe.yaml, line 2, is not valid YAML (could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system')",
        ),
        ("name: a\nname: b\n", "recipe.yaml: name is set twice (lines 1 and 2); keep one"),
        (
            "name: a\nattribution:\n  ratio: 0.1\n  score: wagle\n  'ratio': 0.2\n",
            "recipe.yaml: attribution.ratio is set twice (lines 3 and 5); keep one",
        ),
        ("name: a\nmodel: demo\n3: x\n", "recipe.yaml: 3 is not a setting"),
        (
            "name: a\nmodel: &m [*m]\n",
            "recipe.yaml, line 2, is not valid YAML (it holds itself)",
        ),
        (
            "name: a\nmodel: demo\nfinetune: {optimizer_settings: &m [*m]}\n",
            "recipe.yaml, line 3, is not valid YAML (it holds itself)",
        ),
        (f"name: {'[' * 3000}", "recipe.yaml is not valid YAML (it is nested too deeply)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(text, said):
    assert file_message(text) == said


def test_a_file_that_is_not_text_is_refused_in_one_line():
    assert file_message(b"name: \xff\n").startswith("recipe.yaml is not UTF-8 text (")
    assert file_message(b"name: a\x00b\n").startswith("recipe.yaml is not valid YAML (")


def test_a_folder_is_not_a_recipe():
    Path("runs").mkdir()
    assert message("runs") == "runs is a folder; give the recipe file in it"


def test_an_unknown_recipe_names_the_nearest_ready_one(monkeypatch):
    monkeypatch.setattr(wagle.recipe.reading, "ready_texts", lambda: {"demo": "", "tofu": ""})
    said = "exists, and no ready recipe has that name"
    assert message("dmeo") == f"no file dmeo {said}; nearest: demo (known: demo, tofu)"
    assert message("demo.yml") == f"no file demo.yml {said}; nearest: demo (known: demo, tofu)"
    assert message("runs/x.yaml") == f"no file runs/x.yaml {said} (known: demo, tofu)"
    monkeypatch.setattr(wagle.recipe.reading, "ready_texts", dict)
    assert message("dmeo") == f"no file dmeo {said}"


def test_a_ready_recipe_is_read_by_its_name_even_beside_a_folder_of_that_name(monkeypatch):
    ready = {"demo": "name: demo\nmodel: demo\nseed: 7\n", "bad": "name: demo\nmodle: demo\n"}
    monkeypatch.setattr(wagle.recipe.reading, "ready_texts", lambda: ready)
    Path("demo").mkdir()
    assert ready_recipes() == ["bad", "demo"]
    assert load_recipe("demo").seed == 7
    assert message("bad") == "bad: modle is not a setting; nearest: model (and 1 more)"


def test_every_ready_recipe_of_the_package_loads():
    for name in ready_recipes():
        assert load_recipe(load_recipe(name).resolved()) == load_recipe(name)


# ---------------------------------------------------------------------------------------------
# There and back

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
_sources = st.lists(_texts.filter(lambda s: s != "complement"), min_size=1, max_size=3)
_ratios = st.floats(0, 1, exclude_min=True)


@st.composite
def recipes(draw):
    sources = draw(_sources)
    ladder = sorted(draw(st.sets(_ratios, min_size=1, max_size=15)))
    trap = st.sampled_from(
        ["1e-5", "no", "20:40", "010", "2024-01-01", "null", "~", "=", "<<", "0x1f", "1_0", ".5"]
    )
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True) | st.just("1e5")),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "model": {"path": draw(_texts | trap), "system_prompt": draw(st.none() | st.text() | trap)},
        "forget": {
            "source": sources,
            "weights": draw(st.none() | st.just([0.5] * len(sources))),
            "rows": draw(st.none() | st.sampled_from(["20:40", "0:360", ":7"])),
            "take": draw(st.just("all") | st.integers(1, 10**18 - 1) | st.integers(1, 100).map(lambda n: f"{n}%")),
        },
        "finetune": draw(st.none() | st.just({"records": "more.json", "learning_rate": 1e-5})),
        "attribution": {
            "gamma": draw(st.just("auto") | st.floats(1e-300, 1e300) | st.just({"theta_share": 0.1})),
            "ratio": ladder,
            "use": draw(st.sampled_from(ladder)),
            "include": draw(st.lists(_texts | trap, max_size=3)),
        },
        "unlearning": {
            "learning_rate": draw(st.floats(1e-300, 1e300)),
            "optimizer_settings": draw(st.dictionaries(st.text(max_size=9) | trap, _scalars | st.lists(_scalars), max_size=3)),
        },
    }  # fmt: skip


@settings(deadline=None)  # other work on the machine is no failure
@given(recipes())
def test_a_dump_reads_back_to_an_equal_recipe(given):
    recipe = load_recipe(given)
    Path("again.yaml").write_text(dump_recipe(recipe), encoding="utf-8", newline="")
    again = load_recipe("again.yaml")
    assert again == recipe
    assert again.resolved() == recipe.resolved()
    assert load_recipe(json.loads(json.dumps(recipe.resolved(), allow_nan=False))) == recipe


@pytest.mark.parametrize(
    "prompt", ["a\nb", "a\n", "\n", "\x85", "a\u2028b", " a ", "a: b #c", "\ufeff"]
)
def test_a_dump_keeps_line_breaks_and_blanks(prompt):
    recipe = load_recipe({**BARE, "unlearning": {"optimizer_settings": {prompt: prompt}}})
    assert load(dump_recipe(recipe)) == recipe


def test_a_dump_means_the_same_to_a_reader_of_yaml_1_1():
    import yaml

    recipe = load_recipe({**BARE, "forget": {"source": "1e5", "rows": "20:40"}})
    assert yaml.safe_load(dump_recipe(recipe)) == recipe.resolved()


def test_a_dump_holds_the_exact_ratio_and_repeats_instead_of_anchors():
    shared = ["x"]
    text = dump_recipe(
        load_recipe({**BARE, "attribution": {"ratio": 0.29, "include": shared, "exclude": shared}})
    )
    assert "  ratio: 0.29\n" in text
    assert "&" not in text


def test_tuples_and_paths_become_what_yaml_can_hold():
    given = {
        "name": "trial",
        "model": Path("models/a"),
        "unlearning": {"optimizer_settings": {"betas": (0.9, 0.99)}},
    }
    recipe = load_recipe(given)
    assert recipe.model.path == "models/a"
    assert recipe.unlearning.optimizer_settings == {"betas": [0.9, 0.99]}


# ---------------------------------------------------------------------------------------------
# The fields themselves


def test_every_setting_has_a_text_that_explains_it():
    for section in sections():
        assert section.__doc__, section
        for name, field in section.model_fields.items():
            text = field.description or ""
            assert len(text) > 10, f"{section.__name__}.{name}"
            assert text[0].isupper(), f"{section.__name__}.{name}"
            assert text.endswith("."), f"{section.__name__}.{name}"


def test_every_section_refuses_unknown_settings_and_changes():
    for section in sections():
        assert section.model_config["extra"] == "forbid", section
        assert section.model_config["frozen"] is True, section


def test_importing_the_recipe_loads_no_heavy_library():
    code = (
        "import sys, wagle.recipe.reading; wagle.recipe.reading.load_recipe({'name': 'a', 'model': 'demo'});"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    path = str(Path(wagle.__file__).parents[1])
    got = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert got.stdout.strip() == "[]"
