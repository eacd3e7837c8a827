"""Configs of the published WAGLE code and of SOUL, as recipes."""

from __future__ import annotations

import pytest
from bench.published import SOUL, WAGLE

from wagle.attribution.scoring.scores import SCORES
from wagle.recipe.published.dotted import merge
from wagle.recipe.published.imported import EVERY, OWN, MaskFile, Places, finish
from wagle.recipe.published.wagle_code.keys import KEYS
from wagle.recipe.published.wagle_code.keys import SOUL as SOUL_CODE
from wagle.recipe.published.wagle_code.keys import WAGLE as WAGLE_CODE
from wagle.recipe.published.wagle_code.masks import _SCORES
from wagle.recipe.published.wagle_code.methods import METHODS
from wagle.recipe.published.wagle_code.recipe import import_config
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.table import OBJECTIVES


def made(name, *overrides, corrected=True, source=WAGLE, **more):
    words = [tuple(one.split("=", 1)) for one in overrides]
    return import_config([(f"{name}.json", source[name])], words, corrected=corrected, **more)


def same(found, wanted):
    """Both as complete recipes, and the first without a setting that is wagle's default."""
    assert load_recipe(found) == load_recipe(wanted)
    assert finish(found) == found


def test_the_documented_example_has_exactly_its_recipe():
    found = made("Tofu/NPO+WAGLE", "unlearn.mask_path=mask/tofu_0.8.pt")
    wanted = {
        "name": "tofu",
        "seed": 1,
        "model": {"path": "tofu_ft_llama2-7b", "template": "llama2"},
        "forget": {"source": "TOFU", "split": "forget10", "take": 400, "seed": 1000},
        "retain": {"source": "TOFU", "split": "retain90"},
        "attribution": {"mask": "tofu_0.8.safetensors"},
        "unlearning": {
            "objective": "npo",
            "weight_decay": 0.1,
            "batch_size": 1,
            "accumulation": 4,
            "max_steps": 400,
            "warmup_steps": 40,
        },
        "evaluation": {"benchmarks": [{"name": "tofu", "settings": {"data": "TOFU"}}]},
    }
    same(found.recipe, merge(EVERY, wanted))
    assert found.mask == MaskFile("mask/tofu_0.8.pt", "tofu_0.8.safetensors")


@pytest.mark.parametrize(
    ("name", "objective", "lr", "decay", "steps", "mask", "seed"),
    [
        ("Tofu/GradDiff+WAGLE", "grad_diff", 7e-6, 0.1, 500, "tofu_0.95", 0),
        ("Tofu/NPO+WAGLE", "npo", 1e-5, 0.1, 400, "tofu_0.95", 1),
        ("Tofu/PO+WAGLE", "po", 2e-5, 0.1, 500, "tofu_0.8", 0),
        ("wmdp/GradDiff+WAGLE", "grad_diff", 5e-6, 0.0, 500, "wmdp_0.4", 3),
        ("wmdp/NPO+WAGLE", "npo", 1e-5, 0.0, 500, "wmdp_0.6", 0),
    ],
)
@pytest.mark.parametrize("corrected", [True, False])
def test_the_five_files_have_their_published_values(
    name, objective, lr, decay, steps, mask, seed, corrected
):
    recipe = load_recipe(made(name, corrected=corrected).recipe)
    trained = recipe.unlearning
    assert (recipe.seed, trained.objective, trained.learning_rate) == (seed, objective, lr)
    assert (trained.weight_decay, trained.max_steps, trained.warmup_steps) == (
        decay,
        steps,
        steps // 10,
    )
    assert (trained.batch_size, trained.accumulation, trained.schedule) == (1, 4, "linear")
    assert (trained.stop_when, trained.pairing, trained.precision) == ([], "random", "bfloat16")
    assert recipe.attribution.mask == f"{mask}.safetensors"
    wmdp = name.startswith("wmdp")
    assert [one.name for one in recipe.evaluation.benchmarks] == (
        ["wmdp", "wikitext", "mmlu"] if wmdp else ["tofu"]
    )
    assert recipe.model.template == (
        "plain" if wmdp else "llama2" if corrected else "llama2_published"
    )
    assert trained.objective_settings == (
        {"beta_token_mean": True} if objective == "npo" and not corrected else {}
    )
    choose_objective(objective, trained.objective_settings)


def test_wmdp_reads_both_corpora_and_all_of_them():
    recipe = made("wmdp/NPO+WAGLE").recipe
    assert recipe["forget"] == {"source": ["cyber-forget-corpus.jsonl", "bio_remove_dataset.jsonl"]}
    assert recipe["retain"] == {"source": ["cyber-retain-corpus.jsonl", "bio-retain-corpus.jsonl"]}
    assert recipe["model"] == {"path": "zephyr-7b-beta", "template": "plain", "max_length": 1024}


def test_what_a_faithful_recipe_imitates_and_what_it_does_not_is_said():
    notes = made("Tofu/NPO+WAGLE", corrected=False).notes
    said = "\n".join(notes.imitated)
    for switch in ("beta_token_mean", "llama2_published", "pairing: random", "variant: published"):
        assert switch in said
    said = "\n".join(notes.differs)
    for switch in (
        "score_last_prompt_token",
        "optimizer_dtype",
        "clip_before_mask",
        "weight decay",
    ):
        assert switch in said
    assert "refusal_without_eos" not in said
    assert any(
        "refusal_without_eos" in one for one in made("Tofu/PO+WAGLE", corrected=False).notes.differs
    )
    texts = made("wmdp/NPO+WAGLE", corrected=False).notes.differs
    assert any("text_score_padding" in one for one in texts)
    corrected = made("Tofu/NPO+WAGLE").notes
    assert (corrected.imitated, corrected.differs) == ([], [])


@pytest.mark.parametrize(
    ("name", "objective", "weight", "steps", "benchmark"),
    [
        ("TOFU/FO_GradDiff", "grad_diff", 0.3, 500, "tofu"),
        ("TOFU/FO_PO", "po", 1.0, 500, "tofu"),
        ("TOFU/SO_GradDiff", "grad_diff", 2.0, 500, "tofu"),
        ("TOFU/SO_PO", "po", 5.0, 500, "tofu"),
        ("TOFU/origin", "none", 1.0, 500, "tofu"),
        ("Toxic/FO_PO_llama", "po", 1.0, 500, "toxicity"),
        ("Toxic/FO_PO_opt", "po", 0.1, 250, "toxicity"),
        ("Toxic/SO_PO_llama", "po", 0.1, 500, "toxicity"),
        ("Toxic/SO_PO_opt", "po", 0.1, 250, "toxicity"),
    ],
)
@pytest.mark.parametrize("corrected", [True, False])
def test_souls_files_have_their_published_values(
    name, objective, weight, steps, benchmark, corrected
):
    found = made(name, source=SOUL, corrected=corrected)
    recipe = load_recipe(found.recipe)
    assert found.project == SOUL_CODE
    trained = recipe.unlearning
    assert (trained.objective, trained.max_steps, trained.warmup_steps) == (
        objective,
        steps,
        steps // 10,
    )
    assert trained.objective_settings.get("retain_weight", 1.0) == weight
    assert recipe.evaluation.benchmarks[0].name == benchmark
    assert recipe.attribution.score == {"by_name": ["*"]}
    second = "/SO_" in name
    assert trained.optimizer == ("SophiaG" if second else "AdamW")
    if second:
        assert trained.optimizer_settings == {"betas": [0.9, 0.95], "rho": 0.04}
        assert trained.curvature_every == (10 if corrected else 1)


def test_both_spellings_of_numbers_and_booleans_and_null_for_the_default_are_read():
    found = made(
        "Tofu/GradDiff+WAGLE",
        "unlearn.lr=1e-4",
        "unlearn.sophia=1",
        "dataset.self_retain=true",
        "dataset.forget_ratio=0.5",
        "unlearn.mask_path=null",
        "unlearn.max_steps=null",
        "unlearn.GA+FT.gamma=0.25",
    ).recipe
    trained = found["unlearning"]
    assert (trained["learning_rate"], trained["optimizer"]) == (1e-4, "SophiaG")
    assert trained["objective_settings"] == {"retain_weight": 0.25}
    assert found["retain"] == "complement"
    assert found["forget"]["take"] == "50%"
    assert trained["max_steps"] == 5 * 200 // 4


def test_null_stands_for_the_default_which_is_no_mask():
    assert made("Tofu/NPO+WAGLE", "unlearn.mask_path=null").mask is None


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("GA+KL", {"forget_weight": 0.25, "retain_weight": 0.75}),
        ("KL", {"forget_weight": 0.25}),
        ("CL+KL", {"retain_weight": 0.25}),
        ("CL+FT", {"retain_weight": 0.25}),
    ],
)
def test_gamma_is_the_weight_that_the_method_gives_it(method, settings):
    words = (f"unlearn.unlearn_method={method}", f"unlearn.{method}.gamma=0.25")
    trained = made("Tofu/NPO+WAGLE", *words).recipe["unlearning"]
    assert trained["objective_settings"] == settings


@pytest.mark.parametrize(
    ("path", "attribution"),
    [
        (
            "mask/snip_advanced/with_0.8.pt",
            {"gamma": {"mu": 1e-6, "accumulation": 4}, "ratio": 0.8},
        ),
        ("mask/weight/with_0.1.pt", {"score": "magnitude", "ratio": 0.1}),
        ("mask/gradient/with_0.95.pt", {"score": "grad_forget", "ratio": 0.95}),
        ("mask/wanda/with_0.4.pt", {"score": "wanda", "ratio": 0.4}),
        ("mask/snip_advanced_gn/with_0.6.pt", {"score": "wagle_gauss_newton", "ratio": 0.6}),
        ("mask/FFN/with_0.0.pt", {"score": {"by_name": ["ffn"]}}),
        (
            "mask/snip_advanced/with_0.33.pt",
            {"gamma": {"mu": 1e-6, "accumulation": 4}, "ratio": 0.33},
        ),
    ],
)
def test_a_mask_that_is_not_there_is_made_as_its_path_says(path, attribution):
    found = made("Tofu/NPO+WAGLE", f"unlearn.mask_path={path}")
    assert found.mask is None
    assert found.recipe["attribution"] == attribution
    there = made(
        "Tofu/NPO+WAGLE", f"unlearn.mask_path={path}", places=Places(exists=lambda _: True)
    )
    assert there.mask.published == path


def test_where_models_and_records_are_is_said_once_for_all():
    places = Places("models/tiny", "sets/")
    recipe = made("Tofu/NPO+WAGLE", places=places).recipe
    assert recipe["model"]["path"] == "models/tiny"
    assert recipe["forget"]["source"] == recipe["retain"]["source"] == "sets/TOFU"
    assert recipe["evaluation"]["benchmarks"][0]["settings"]["data"] == "sets/TOFU"


def test_a_key_without_a_counterpart_is_named_with_its_file_and_what_it_does_there():
    config = merge(WAGLE["Tofu/NPO+WAGLE"], {"unlearn": {"lrr": 3}})
    said = "\n".join(import_config([("a.json", config)]).notes.left_out)
    assert (
        "unlearn.lrr (a.json): no key of that code, which ignores it; nearest: unlearn.lr" in said
    )
    assert "unlearn.p (a.json): the published WAGLE code reads it and does nothing with it" in said
    assert "logger.json.root (a.json): the published WAGLE code writes its results there" in said


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("unlearn.lrr=1", "--unlearn.lrr is no key of that code; nearest: unlearn.lr"),
        ("unlearn.lr=fast", "unlearn.lr is 'fast'; it must be a number"),
        ("unlearn.num_epochs=1.5", "must be a whole number"),
        ("unlearn.sophia=maybe", "must be 0, 1, true or false"),
        ("unlearn.unlearn_method=CUT", "CUT has no counterpart: .* is unfinished"),
        ("unlearn.unlearn_method=GA_FT", "unknown unlearn.unlearn_method"),
        ("unlearn.l1_sparse.alpha=1e-9", None),
        ("dataset.forget_ratio=0", "forget_ratio is 0"),
        ("dataset.forget_ratio=0.333", "a share is a whole percentage"),
        ("dataset.forget_ratio=500", "asks for 500 of 400 records"),
        ("dataset.retain_dataset_name=TruthfulQA", "it is its default and stops it"),
        ("dataset.retain_dataset_name=SafePku", "would keep what should go"),
        ("dataset.forget_dataset_name=WMDPChem", "WMDPChem is none"),
        ("unlearn.task_name=math", "task_name math is none"),
        ("unlearn.use_lora=1", "use_lora and unlearn.mask_path are both given"),
        ("unlearn.mask_path=m/snip_smooth/with_0.8.pt", "snip_smooth cannot be reached there"),
        ("unlearn.mask_path=m/snp_advanced/with_0.8.pt", "nearest: snip_advanced"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(word, message):
    if message is None:
        made("Tofu/NPO+WAGLE", word)  # of a method that is not chosen
        word = "unlearn.unlearn_method=l1_sparse"
        with pytest.raises(WagleError, match="alpha 1e-09 cannot be converted"):
            made("Tofu/NPO+WAGLE", word, "unlearn.l1_sparse.alpha=1e-9")
        return
    with pytest.raises(WagleError, match=message) as error:
        made("Tofu/NPO+WAGLE", word)
    assert "\n" not in str(error.value)


def test_only_a_faithful_import_holds_to_the_ratios_that_the_code_writes():
    with pytest.raises(
        WagleError, match=r"0.33, which the published code never writes .* --corrected"
    ):
        made("Tofu/NPO+WAGLE", "unlearn.mask_path=m/weight/with_0.33.pt", corrected=False)


@pytest.mark.parametrize("method", ["CL", "CL+FT", "RL"])
def test_a_text_has_no_refusal(method):
    with pytest.raises(WagleError, match="the refusal of a text is the text itself"):
        made("wmdp/NPO+WAGLE", f"unlearn.unlearn_method={method}")


def test_an_unknown_number_of_steps_is_asked_for():
    found = made("wmdp/NPO+WAGLE", "unlearn.max_steps=-1")
    assert found.recipe["unlearning"].get("max_steps") is None
    assert any("set unlearning.warmup_steps" in one for one in found.notes.remarks)


def test_lora_is_the_published_one():
    words = ("unlearn.mask_path=null", "unlearn.use_lora=1")
    lora = load_recipe(made("Tofu/NPO+WAGLE", *words).recipe).unlearning.lora
    assert (lora.rank, lora.alpha, lora.dropout) == (8, 32, 0.05)
    assert lora.targets == ["q_proj", "v_proj"]


@pytest.mark.parametrize("project", [WAGLE_CODE, SOUL_CODE])
def test_every_method_and_score_stands_for_one_here_and_has_its_key(project):
    for name, method in METHODS[project].items():
        assert method.objective in OBJECTIVES
        if method.weights is not None:
            assert f"unlearn.{name}.gamma" in KEYS[project]
    assert {one for one in _SCORES.values() if isinstance(one, str)} <= SCORES.keys()


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_defaults_that_an_import_leaves_out_are_those_of_the_objectives(name):
    described = choose_objective(name).describe()
    assert {key: described[key] for key in OWN[name]} == OWN[name]
