"""Training on several processes takes the steps of one, whatever the objective and the optimiser."""

from __future__ import annotations

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.processes import on
from wagle.recipe.sections.training import Training

OBJECTIVES = ["grad_diff", "npo", "simnpo", "refusal_kl", "rmu", "undial"]
SETTINGS = {"rmu": {"layer": 0}}


def mask_of(model, ratio=0.3):
    store = wagle.gradients(model, make_tokenizer(), RECORDS, OTHERS)
    return wagle.Mask.from_scores(store, ratio=ratio)


def train(objective="npo", mask=None, *, training=None, family="llama-tied", **more):
    model = make_model(family)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    result = wagle.unlearn(
        model,
        make_tokenizer(),
        RECORDS,
        OTHERS,
        mask=mask,
        objective=objective,
        objective_settings=SETTINGS.get(objective),
        training=Training(
            **{"max_steps": 20, "learning_rate": 1e-3, "batch_size": 4, **(training or {})}
        ),
        **{"stop_when": [], **more},
    )
    after = {n: p.detach().clone() for n, p in model.named_parameters()}
    return before, after, result


def check_same(alone, several, mask=None, tolerance=1e-5):
    _, wanted, result = alone
    for before, found, other in several:
        assert [h["step"] for h in other.history] == [h["step"] for h in result.history]
        for mine, theirs in zip(other.history, result.history, strict=True):
            for name in theirs:
                assert mine[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name
        for name, tensor in wanted.items():
            assert float((found[name] - tensor).abs().max()) < tolerance, name
            if mask is not None:
                rest = torch.ones(tensor.numel(), dtype=torch.bool)
                rest[mask.selected(name).long()] = False
                assert torch.equal(found[name].view(-1)[rest], before[name].view(-1)[rest])
        first = several[0][1]
        assert all(
            torch.equal(found[n], first[n]) for n in found
        )  # every process has the same bits


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_takes_the_same_steps(objective, world):
    mask = mask_of(make_model("llama-tied"))
    how = {"training": {"accumulation": 4, "batch_size": 1}} if world == 2 else {}
    check_same(train(objective, mask, **how), on(world, _train, objective, mask, how), mask)


def _train(objective, mask, how):
    return train(objective, mask, **how)


@pytest.mark.parametrize(
    "how",
    [
        {"training": {"optimizer": "SophiaG", "learning_rate": 1e-4, "curvature_every": 3}},
        {"wrapper": "gru"},
        {"wrapper": "sam"},
        {"wrapper": "smooth"},
        {"dynamic_mask": "sign_agreement"},
        {"dynamic_mask": "row_norm", "dynamic_settings": {"quantile": 0.5}},
        {"best": "min forget.probability where retain.probability >= 0.5 * before"},
        {"training": {"max_steps": None, "epochs": 3, "batch_size": 4}},  # last step: two pairs
        {"evaluate_every": 5, "training": {"max_steps": 10}},
    ],
    ids=lambda how: "-".join(map(str, how)) + str(how.get("wrapper", how.get("dynamic_mask", ""))),
)
def test_optimizers_wrappers_dynamic_masks_and_looks_do_too(how):
    mask = mask_of(make_model("llama-tied"))
    check_same(train("grad_diff", mask, **how), on(3, _train, "grad_diff", mask, how), mask)


def test_all_weights_train_alike_and_teaching_does_too():
    check_same(train("npo"), on(2, _train, "npo", None, {}))
    alone = _teach()
    for found in on(3, _teach):
        assert all(float((found[n] - alone[n]).abs().max()) < 1e-5 for n in alone)


def _teach():
    model = make_model("gpt2")
    training = Training(max_steps=10, learning_rate=1e-3, batch_size=3)
    wagle.finetune(model, make_tokenizer(), RECORDS + OTHERS, training=training)
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_in_bfloat16_two_processes_have_the_bits_of_one_where_whole_micro_batches_are_dealt_out():
    (alone,), several = on(1, _teach_roughly, 2), on(2, _teach_roughly, 2)
    assert all(torch.equal(found[n], alone[n]) for found in several for n in alone)
    (alone,), several = on(1, _teach_roughly, 1), on(2, _teach_roughly, 1)
    assert not all(torch.equal(several[0][n], alone[n]) for n in alone)  # it is rounded otherwise


def _teach_roughly(accumulation):
    model = make_model("llama-tied")
    how = {"batch_size": 4 // accumulation, "accumulation": accumulation, "precision": "bfloat16"}
    training = Training(max_steps=5, learning_rate=1e-3, **how)
    wagle.finetune(model, make_tokenizer(), RECORDS + OTHERS, training=training)
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_a_run_lands_at_the_same_point():
    reference = {"forget.probability": 0.01, "forget.probability.low": 0.008}
    reference["forget.probability.high"] = 0.012
    how = {"stop_when": "auto", "reference": reference, "training": {"learning_rate": 3e-3}}
    mask = mask_of(make_model("llama-tied"))
    model = make_model("llama-tied")
    taught = Training(max_steps=60, learning_rate=3e-3, batch_size=6)
    wagle.finetune(model, make_tokenizer(), RECORDS, training=taught)
    alone = _land(model.state_dict(), mask, how)
    assert alone[1]["share"] < 1
    for weights, landed in on(2, _land, model.state_dict(), mask, how):
        assert landed["share"] == alone[1]["share"]
        assert landed["value"] == pytest.approx(alone[1]["value"], rel=1e-4)
        assert all(float((weights[n] - alone[0][n]).abs().max()) < 1e-5 for n in weights)


def _land(state, mask, how):
    model = make_model("llama-tied")
    model.load_state_dict(state)
    training = Training(max_steps=40, batch_size=4, **how["training"])
    more = {k: v for k, v in how.items() if k != "training"}
    result = wagle.unlearn(
        model,
        make_tokenizer(),
        RECORDS,
        OTHERS,
        mask=mask,
        objective="grad_diff",
        training=training,
        allow_other_model=True,
        **more,
    )
    return {n: p.detach().clone() for n, p in model.named_parameters()}, result.landed


def test_a_loss_that_is_not_finite_on_one_process_stops_all():
    for said in on(2, _blow_up):
        assert "lower the learning rate" in said
        assert "the model is" in said


def _blow_up():
    try:
        train("grad_ascent", training={"learning_rate": 1e4, "max_grad_norm": 0.0})
    except wagle.WagleError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("family", ["llama-tied", "llama-untied", "gpt2"])
def test_a_model_in_shards_takes_the_same_steps_and_is_saved_the_same(tmp_path, family, world):
    folder = _folder(tmp_path, family)
    mask = mask_of(make_model(family), 0.1)
    alone = _in_one(folder, tmp_path / "alone", mask, {})
    for history in on(world, _in_shards, folder, tmp_path / "sharded", mask, {}):
        _check_history(history, alone)
    _check_folders(folder, tmp_path / "alone", tmp_path / "sharded", mask)


@pytest.mark.parametrize(
    "how",
    [
        {"objective": "rmu", "objective_settings": {"layer": 0}},
        # a gentle rate: KL begins at a gradient of rounding errors, which AdamW scales up
        {"objective": "kl", "full_reference": "topk", "training": {"learning_rate": 1e-4}},
        {
            "wrapper": "task_vector",
            "objective": "forget_finetune",
            "wrapper_settings": {"scale": -1.0},
        },
        {"training": {"optimizer": "SophiaG", "learning_rate": 1e-4}},
        {"training": {"max_steps": None, "epochs": 2, "batch_size": 4}, "evaluate_every": 1},
    ],
    ids=["rmu", "kl", "task_vector", "sophia", "looks"],
)
def test_so_it_does_with_other_objectives_and_optimizers(tmp_path, how):
    folder, mask = _folder(tmp_path), mask_of(make_model("llama-tied"), 0.1)
    alone = _in_one(folder, tmp_path / "alone", mask, how)
    for history in on(2, _in_shards, folder, tmp_path / "sharded", mask, how):
        _check_history(history, alone)
    _check_folders(folder, tmp_path / "alone", tmp_path / "sharded", mask)


def test_what_a_model_in_shards_cannot_do_is_said_before_any_work(tmp_path):
    folder, mask = _folder(tmp_path), mask_of(make_model("llama-tied"), 0.1)
    for how, said in (
        ({"wrapper": "gru"}, "wrapper gru does not work with a model in shards"),
        ({"dynamic_mask": "row_norm"}, "dynamic_mask row_norm does not work"),
        ({"objective": "kl"}, "set unlearning.full_reference: topk"),
    ):
        found = on(2, _refused, folder, tmp_path / "out", mask, how)
        assert all(said in text for text in found)
    assert not (tmp_path / "out").exists()


def _refused(folder, out, mask, how):
    try:
        _in_shards(folder, out, mask, how)
    except wagle.WagleError as error:
        return str(error)
    return "no error"


def _folder(tmp_path, family="llama-tied"):
    make_model(family).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _unlearn_from(model, mask, how):
    settings = Training(
        **{"max_steps": 8, "learning_rate": 1e-3, "batch_size": 4, **how.get("training", {})}
    )
    more = {k: v for k, v in how.items() if k != "training"}
    return wagle.unlearn(
        model,
        make_tokenizer(),
        RECORDS,
        OTHERS,
        mask=mask,
        training=settings,
        **{"objective": "npo", "stop_when": [], **more},
    ).history


def _in_one(folder, out, mask, how):
    from wagle.model.loading import load_model
    from wagle.model.saving import save_model

    model = load_model(folder)
    history = _unlearn_from(model, mask, how)
    save_model(model, folder, out)
    return history


def _in_shards(folder, out, mask, how):
    from wagle.unlearning.sharded import InShards

    return _unlearn_from(InShards(folder, out, out.with_name("good")), mask, how)


def _check_history(found, wanted):
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def _check_folders(before, one, other, mask):
    from safetensors.torch import load_file

    was, wanted, found = (load_file(f / "model.safetensors") for f in (before, one, other))
    assert found.keys() == wanted.keys()
    names = {p.name for p in one.iterdir()}
    assert {p.name for p in other.iterdir()} == names
    for name, tensor in wanted.items():
        assert float((found[name] - tensor).abs().max()) < 1e-5
        rest = torch.ones(tensor.numel(), dtype=torch.bool)
        if name in mask.shapes:
            rest[mask.selected(name).long()] = False
        assert torch.equal(found[name].view(-1)[rest], was[name].view(-1)[rest])
