"""OpenUnlearning's command lines and experiment files, as recipes."""

from __future__ import annotations

import pytest

from wagle.recipe.published.dotted import merge
from wagle.recipe.published.imported import EVERY, finish
from wagle.recipe.published.open_unlearning.experiments import EXPERIMENTS
from wagle.recipe.published.open_unlearning.groups import TRAINERS as FILES
from wagle.recipe.published.open_unlearning.recipe import import_words
from wagle.recipe.published.open_unlearning.trainers import TRAINERS, glob_of
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.choice import choose_objective

TOFU = {
    "name": "b",
    "model": {
        "path": "tofu_Llama-3.2-1B-Instruct_full",
        "system_prompt": "You are a helpful assistant.",
    },
    "forget": {"source": "TOFU", "split": "forget10"},
    "retain": {"source": "TOFU", "split": "retain90"},
    "unlearning": {
        "objective": "npo",
        "optimizer": "PagedAdamW32bit",
        "weight_decay": 0.01,
        "accumulation": 4,
        "max_steps": 120,
        "warmup_steps": 12,
    },
    "evaluation": {
        "benchmarks": [{"name": "tofu", "settings": {"data": "TOFU", "variant": "open_unlearning"}}]
    },
}


def _muse(name, corpus, **unlearning):
    settings = {"data": corpus, "corpus": corpus, "variant": "open_unlearning"}
    return {
        "name": name,
        "model": {
            "path": f"MUSE-{corpus.title()}_target",
            "template": "question_answer",
            "max_length": 2048,
        },
        "forget": f"{corpus}/raw/forget.jsonl",
        "retain": f"{corpus}/raw/retain1.jsonl",
        "unlearning": {
            "optimizer": "PagedAdamW32bit",
            "schedule": "constant",
            "batch_size": 4,
            "accumulation": 8,
            "epochs": 10,
            **unlearning,
        },
        "evaluation": {"benchmarks": [{"name": "muse", "settings": settings}]},
    }


EXAMPLES = {
    "experiment=unlearn/tofu/default trainer=NPO task_name=b": TOFU,
    "experiment=unlearn/tofu/idk forget_split=forget05 retain_split=retain95 task_name=c": merge(
        TOFU,
        {
            "name": "c",
            "forget": {"split": "forget05"},
            "retain": {"split": "retain95"},
            "unlearning": {"objective": "dpo", "max_steps": 60, "warmup_steps": 6},
            "evaluation": {
                "benchmarks": [
                    {
                        "name": "tofu",
                        "settings": {
                            "data": "TOFU",
                            "split": "forget05",
                            "variant": "open_unlearning",
                        },
                    }
                ]
            },
        },
    ),
    "experiment=unlearn/muse/default data_split=Books trainer=GradDiff "
    "trainer.method_args.retain_loss_type=KL task_name=d": _muse(
        "d", "books", objective="grad_diff", retain_term="kl"
    ),
    "experiment=unlearn/muse/default trainer=SimNPO trainer.method_args.beta=3 task_name=e": _muse(
        "e", "news", objective="simnpo", objective_settings={"beta": 3.0}
    ),
    "experiment=unlearn/wmdp/default task_name=f": {
        "name": "f",
        "model": {"path": "zephyr-7b-beta"},
        "forget": "cyber-forget-corpus.jsonl",
        "retain": "cyber-retain-corpus.jsonl",
        "attribution": {"score": {"by_name": ["*.[567].mlp.down_proj.weight"]}},
        "unlearning": {
            "objective": "rmu",
            "objective_settings": {"steering": 2.0, "retain_weight": 1.0},
            "optimizer": "PagedAdamW32bit",
            "schedule": "constant",
            "learning_rate": 5.0e-5,
            "batch_size": 1,
            "accumulation": 16,
            "max_steps": 80,
        },
        "evaluation": {
            "benchmarks": [{"name": "harness", "settings": {"tasks": ["wmdp_cyber"]}}, "mmlu"]
        },
    },
}


def made(line, **more):
    more.setdefault("corrected", True)
    return import_words(line.split(), **more)


@pytest.mark.parametrize("line", list(EXAMPLES))
def test_the_documented_examples_have_exactly_their_recipes(line):
    found = made(line).recipe
    assert load_recipe(found) == load_recipe(merge(EVERY, EXAMPLES[line]))
    assert finish(found) == found  # and no setting that is wagle's default
    load_recipe(made(line, corrected=False).recipe)


def test_a_line_of_the_published_script_is_read_whole():
    found = made(
        "experiment=unlearn/tofu/default.yaml trainer=GradDiff task_name=tofu_x_GradDiff "
        "model=Llama-3.1-8B-Instruct forget_split=forget01 retain_split=retain99 "
        "model.model_args.pretrained_model_name_or_path=open-unlearning/tofu_Llama-3.1-8B-Instruct_full "
        "retain_logs_path=saves/eval/tofu_x_retain99/TOFU_EVAL.json "
        "trainer.args.per_device_train_batch_size=4 trainer.args.gradient_accumulation_steps=4 "
        "trainer.args.ddp_find_unused_parameters=true trainer.args.gradient_checkpointing=true",
        processes=2,
    )
    recipe = load_recipe(found.recipe)
    trained = recipe.unlearning
    assert (trained.batch_size, trained.accumulation, trained.activation_checkpointing) == (
        4,
        8,
        True,
    )
    assert (trained.max_steps, trained.warmup_steps) == (
        10 * (5 // 4),
        40 // 32,
    )  # 5 batches of 4 on 2
    assert recipe.model.path == "tofu_Llama-3.1-8B-Instruct_full"
    said = "\n".join(found.notes.left_out)
    assert "retain_logs_path: OpenUnlearning compares with the figures" in said
    assert "trainer.args.ddp_find_unused_parameters (command line): OpenUnlearning sets up" in said


@pytest.mark.parametrize(
    ("line", "objective", "settings"),
    [
        ("GradAscent", "grad_ascent", {}),
        ("GradDiff trainer.method_args.alpha=2", "grad_diff", {"retain_weight": 2.0}),
        ("SimNPO trainer.method_args.delta=1", "simnpo", {"margin": 1.0}),
        ("RMU", "rmu", {"steering": 2.0, "retain_weight": 1.0}),
        ("RMU trainer.method_args.module_regex=model\\.layers\\.3", "rmu", None),
        ("UNDIAL trainer.method_args.beta=3", "undial", {"beta": 3.0}),
        ("UNDIAL trainer.method_args.alpha=1", "undial", {}),
        ("CEU", "ce_u", {}),
        ("WGA trainer.method_args.beta=5", "wga", {"beta": 5.0}),
        ("SatImp", "satimp", {"forget_weight": 0.1, "retain_weight": 1.0}),
        (
            "PDU trainer.method_args.retain_loss_eps=0.4 trainer.method_args.alpha=50",
            "pdu",
            {"epsilon": 0.4, "eta": 1.0, "warmup": 5.0, "dual_start": 50.0},
        ),
        ("DPO", "dpo", {}),
    ],
)
def test_every_trainer_is_an_objective_with_its_settings(line, objective, settings):
    recipe = made(f"experiment=unlearn/tofu/default task_name=x trainer={line}").recipe
    trained = load_recipe(recipe).unlearning
    assert trained.objective == objective
    if settings is None:
        assert trained.objective_settings["layer"] == 3
    else:
        assert trained.objective_settings == settings
    chosen = choose_objective(objective, trained.objective_settings, trained.retain_term)
    if "UNDIAL" in line:
        assert chosen.retain == ("nll" if "alpha" in line else "none")
    assert (trained.learning_rate, trained.max_steps) == (
        1e-5,
        120,
    )  # the experiment's, not the group's


def test_all_trainers_are_known():
    assert TRAINERS.keys() == FILES.keys()


def test_other_answers_make_dpo_altpo():
    line = (
        "experiment=unlearn/tofu/default trainer=DPO task_name=x "
        "data.forget.TOFU_QA_forget.handler=QAwithAlternateDataset "
        "+data.forget.TOFU_QA_forget.args.alternate_key=alternate"
    )
    found = made(line)
    assert found.recipe["unlearning"]["objective"] == "dpo_alt"
    assert any("alternate_key: rename that field" in one for one in found.notes.remarks)


def test_a_group_on_the_command_line_beats_the_experiments_but_its_values_do_not():
    recipe = made("experiment=unlearn/tofu/default trainer=WGA model=phi-1_5 task_name=x").recipe
    assert recipe["model"]["path"] == "tofu_Llama-3.2-1B-Instruct_full"
    assert recipe["model"]["template"] == "question_answer"
    assert recipe["unlearning"]["max_steps"] == 120  # 10 epochs; WGA's own file says 5


def test_an_experiment_file_is_read_like_an_experiment_of_that_name():
    trainer = {"args": {**EXPERIMENTS["unlearn/tofu/default"]["trainer"]["args"], "lion": 1}}
    content = {**EXPERIMENTS["unlearn/tofu/default"], "trainer": trainer}
    found = made("trainer=NPO task_name=b", experiment=("mine.yaml", content))
    assert load_recipe(found.recipe) == load_recipe(merge(EVERY, TOFU))
    assert "trainer.args.lion (mine.yaml): nothing here reads it" in found.notes.left_out
    by_name = made("experiment=mine trainer=NPO task_name=b", read=lambda _: content)
    assert by_name.recipe == found.recipe


def test_a_corrected_recipe_names_no_defect_and_a_faithful_one_does():
    line = "experiment=unlearn/wmdp/default task_name=f"
    assert made(line).notes.differs == []
    said = "\n".join(made(line, corrected=False).notes.differs)
    for defect in ("its mean mixes their lengths", "raw JSON", "optimizer_dtype"):
        assert defect in said


def test_satimps_swapped_weights_are_warned_of():
    notes = made("experiment=unlearn/tofu/default trainer=SatImp task_name=x").notes
    assert any("README gamma 1 and alpha 0.1" in one for one in notes.remarks)


@pytest.mark.parametrize(
    ("pattern", "glob"),
    [
        (".*", "*"),
        (r"model\.layers\.(5|6|7)\.mlp\.down_proj\.weight", "*.[567].mlp.down_proj.weight"),
        (r"model\.layers\.\d+\.mlp\..*", "*.*.mlp.*"),
    ],
)
def test_a_regular_expression_of_names_becomes_a_glob(pattern, glob):
    assert glob_of(pattern) == glob


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("experiment=unlearn/tofu/default trainer=NPO", "task_name must be given"),
        ("experiment=unlearn/tofu/defalt task_name=x", "did you mean 'unlearn/tofu/default'"),
        ("experiment=eval/tofu/default task_name=x", "does not unlearn; here: wagle evaluate"),
        ("experiment=unlearn/tofu/default trainer=NOP task_name=x", "unknown trainer"),
        (
            "experiment=unlearn/tofu/default trainer=PDU task_name=x",
            "retain_loss_eps must be given",
        ),
        (
            "experiment=unlearn/wmdp/default trainer=NPO task_name=x",
            "takes no method_args steering_coeff, module_regex, trainable_params_regex",
        ),
        (
            "experiment=unlearn/tofu/default trainer=NPO trainer.args.lerning_rate=1 task_name=x",
            "nearest: trainer.args.learning_rate",
        ),
        (
            "experiment=unlearn/tofu/default trainer.args.optim=lion_32bit task_name=x",
            "optim lion_32bit has no counterpart",
        ),
        (
            "experiment=unlearn/tofu/default trainer=NPO trainer.method_args.beta=x task_name=x",
            "beta is 'x'; it must be a number",
        ),
        (
            "experiment=unlearn/tofu/default trainer=NPO task_name=x "
            "trainer.method_args.retain_loss_type=EMBED_DIFF",
            "at which OpenUnlearning's NPO stops",
        ),
        ("experiment=unlearn/tofu/default task_name=x forget", "no word of OpenUnlearning's"),
        (
            "experiment=unlearn/tofu/default task_name=x forget_split=${forget_split}",
            "refers to itself",
        ),
        (
            "experiment=unlearn/muse/default task_name=x trainer.args.num_train_epochs=1.5",
            "give trainer.args.max_steps",
        ),
        (
            "experiment=unlearn/tofu/default task_name=x trainer=RMU "
            "trainer.method_args.trainable_params_regex=x[^x]+$",
            "has no simple form here",
        ),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(line, message):
    with pytest.raises(WagleError) as error:
        made(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_removed_key_is_gone():
    line = (
        "experiment=unlearn/wmdp/default trainer=NPO task_name=x ~trainer.method_args.steering_coeff "
        "~trainer.method_args.module_regex ~trainer.method_args.trainable_params_regex "
        "trainer.method_args.retain_loss_type=NLL"
    )
    assert made(line).recipe["unlearning"]["objective"] == "npo"
