import inspect
from dataclasses import fields

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import encoder, mask_of, tokens
from wagle.model.loading import empty_model
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.system.errors import WagleError
from wagle.unlearning import forgetting
from wagle.unlearning.plan import plan_pairs, plan_teaching, plan_unlearning, vocabulary

REFERENCE = {"forget.probability": 0.1, "retain.probability": 0.9}


def _plan(model, forget=RECORDS, retain=OTHERS, more=None, **settings):
    return plan_unlearning(
        model, encoder(), forget, retain, Unlearning(**settings), **{"seed": 3, **(more or {})}
    )


# ---------------------------------------------------------------------------------------------
# The settings


def test_the_keyword_call_has_the_settings_and_the_defaults_of_a_recipe():
    keywords = inspect.signature(wagle.unlearn).parameters
    section = {**Unlearning.model_fields}
    own = section.keys() - Training.model_fields.keys() - {"lora", "earlier", "when_unknown"}
    assert own <= keywords.keys()
    for name in own:
        default, wanted = keywords[name].default, section[name].default
        assert ({} if default is None and wanted == {} else default) == wanted, name
    assert not keywords.keys() & Training.model_fields.keys()  # these come as ``training``


def test_a_keyword_call_becomes_the_section_that_a_recipe_would_hold(model, monkeypatch):
    seen = []
    rest = set(inspect.signature(forgetting.unlearn_with).parameters) - {"settings"}
    monkeypatch.setattr(
        forgetting, "unlearn_with", lambda *given, **more: seen.append((given, more))
    )
    training = Training(max_steps=3, learning_rate=1e-3)
    wagle.unlearn(model, encoder(), RECORDS, objective="grad_diff", stop_when=[], training=training)
    wagle.unlearn(model, encoder(), RECORDS, OTHERS, wrapper_settings={"rho": 1.0}, seed=4)
    (((first,), one), ((second,), other)) = seen
    assert first == Unlearning(objective="grad_diff", stop_when=[], max_steps=3, learning_rate=1e-3)
    assert second == Unlearning(wrapper_settings={"rho": 1.0})
    assert set(one) == set(other) == rest
    assert (other["retain"], other["seed"], one["retain"], one["seed"]) == (OTHERS, 4, None, 0)


# ---------------------------------------------------------------------------------------------
# A plan


@pytest.mark.parametrize("objective", ["npo", "dpo", "undial", "random_label_uniform"])
def test_a_model_without_weights_gives_the_plan_of_one_with_them(objective, tmp_path):
    model = make_model("llama-tied")
    model.save_pretrained(tmp_path)
    for name in ("more", "rules"):
        settings = {"objective": objective, "epochs": 2, "stop_when": "auto"}
        more = {"reference": REFERENCE} if name == "rules" else {}
        one = _plan(model, more=more, **settings)
        other = _plan(empty_model(tmp_path), more=more, **settings)
        for part in fields(one):
            if part.name not in ("gradient", "encoder"):
                assert getattr(one, part.name) == getattr(other, part.name), part.name
        assert other.gradient.settings == one.gradient.settings
        assert one.encoder is other.encoder


def test_a_plan_asks_the_model_nothing_and_changes_nothing(model):
    def compute(*_):
        raise AssertionError("the model was asked")

    model.register_forward_pre_hook(compute)
    plan = _plan(model, objective="npo", epochs=2, max_steps=None, batch_size=4)
    assert [len(side["forget"]) for side in (plan.sets, plan.pairs.forget)] == [6, 6]
    assert plan.epochs == 2.0
    assert len(plan.pairs) == 12
    assert [str(rule) for rule in plan.checks.rules] == []
    assert set(plan.checks.known) == {"uniform"}
    assert plan.more["objective"]["name"] == "npo"


def test_where_there_is_nothing_to_train_on_there_is_nothing_in_the_plan(model):
    plan = _plan(model, objective="none")
    assert (dict(plan.sets), len(plan.pairs), plan.epochs, dict(plan.more)) == ({}, 0, 0.0, {})


def test_what_was_forgotten_before_is_trained_on_and_not_looked_at_and_keeps_its_place(model):
    before = wagle.read_records(RECORDS[4:], name="forget")
    plan = _plan(model, RECORDS[:4], more={"forgotten": before, "reference": REFERENCE})
    assert [t.place for t in plan.sets["forget"][4:]] == ["forget[0]", "forget[1]"]
    assert len(plan.looked.sets["forget"]) == len(plan.records) == 4
    plan = _plan(model, RECORDS[:4], more={"forgotten": RECORDS[4:]})
    assert [t.place for t in plan.sets["forget"][4:]] == ["forgotten[0]", "forgotten[1]"]


def test_the_first_thing_that_is_wrong_is_the_one_that_is_told(model):
    """Settings come before records, records before the model, the order of training at last."""
    wrong = {
        "unknown objective 'nop'": {"objective": "nop"},
        "gru and sign_agreement both": {"wrapper": "gru", "dynamic_mask": "sign_agreement"},
        "unknown figure 'forget.prob'": {"stop_when": ["forget.prob < 1"]},
        "unknown element-wise optimizer": {"optimizer": "LBFGS"},
        "unknown tracker": {"report_to": ["tensorbord"]},
        "the forget set is None": {"forget": None},
        "the retain set is empty": {"retain": []},
        "needs wrong answers": {"best": "max retain.true_better"},
        "has no LoRA adapter": {"full_reference": "adapter"},
    }
    left = list(wrong)
    for said in wrong:
        asked = {}
        for name in reversed(left):
            asked |= wrong[name]
        with pytest.raises(WagleError, match=said):
            _plan(model, **asked)
        left.remove(said)


def test_a_checkpoint_depends_on_what_changes_the_result_and_on_nothing_else(model):
    def key(mask=None, **settings):
        return _plan(model, **{"max_steps": 2, **settings}).checkpoint_key(model, mask)

    plain = key()
    assert key(checkpoint_minutes=0, report_to=[], engine="whole") == plain
    assert set(plain["training"]) == set(Training.model_fields) - {
        "checkpoint_minutes",
        "engine",
        "report_to",
    }
    for changed in (
        key(learning_rate=1e-3),
        key(objective="grad_diff"),
        key(check_every=3),
        key(full_reference="topk"),
        key(wrapper="sam"),
        key(max_steps=3),
        key(pairing="fixed"),
        key(mask_of(model)),
    ):
        assert changed != plain
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    assert key() != plain


# ---------------------------------------------------------------------------------------------
# Teaching, and the order of training


def test_a_plan_to_teach_passes_over_the_records_and_looks_at_nothing(model):
    plan = plan_teaching(model, encoder(), RECORDS, Training(epochs=3), seed=1)
    assert (plan.chosen.name, list(plan.sets), plan.epochs) == ("retain_finetune", ["retain"], 3.0)
    assert sorted(retain for _, retain in plan.pairs.pairs) == sorted([*range(6)] * 3)
    assert not plan.looked.sets
    assert not plan.checks.rules
    assert plan.more == {}


@pytest.mark.parametrize(
    ("training", "anchor", "pairs", "epochs"),
    [
        ({"epochs": 2}, "forget", 12, 2.0),
        ({"epochs": 2}, "retain", 16, 2.0),
        ({"max_steps": 3, "batch_size": 4}, "forget", 12, 2.0),
        ({"max_steps": 1, "batch_size": 3, "accumulation": 3}, "forget", 9, 1.5),
    ],
)
def test_an_epoch_is_a_pass_over_the_anchor_set_and_steps_end_it(training, anchor, pairs, epochs):
    sets = {name: list(tokens(name)) for name in ("forget", "retain")}
    planned, found = plan_pairs(sets, Training(**training), 0, "shuffle", anchor)
    assert (len(planned), found) == (pairs, epochs)


def test_the_vocabulary_is_what_the_model_gives_a_logit(model):
    assert vocabulary(model) == 400
