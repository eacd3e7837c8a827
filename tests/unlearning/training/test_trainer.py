import copy
import itertools
import math

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from tests.patch.models import all_tensors
from tests.unlearning.conftest import (
    Killed,
    encoder,
    flat,
    mask_of,
    same,
    sgd,
    slow_nll,
    tokens,
    unlearn,
    weights,
)
from wagle.model.saving import save_model
from wagle.recipe.sections.training import Training
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning import execution
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.training import trainer

# ---------------------------------------------------------------------------------------------
# Numbers that are not finite


def _broken_at(step, value, kept):
    """Gradient difference whose forget loss is ``value`` in one step; notes the weights of each."""

    def broken(forget, retain):
        kept.append(1)
        scale = value if len(kept) == step else 1.0
        return Terms(-forget.nll_mean * scale, retain.nll_mean)

    return broken


def test_a_model_that_gives_no_finite_loss_is_left_alone_and_the_record_is_named():
    model = make_model("llama-untied")
    with torch.no_grad():
        model.lm_head.weight[7, 0] = float("inf")
    before = weights(model)
    with pytest.raises(
        TrainingStopped,
        match=r"^the loss of (forget|retain)\[\d\] is \w+ at step 1; lower the learning rate, or set "
        r"precision: float32; the model is as it was before training$",
    ):
        unlearn(model)
    assert same(model, before)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [True, False])
def test_without_a_checkpoint_a_run_that_breaks_gives_the_model_back_as_it_was(dtype, mask):
    model = make_model("llama-tied").to(dtype)
    before = weights(model)
    chosen = mask_of(model) if mask else None
    with pytest.raises(TrainingStopped, match=r"the loss is nan at step 3.*as it was before"):
        unlearn(model, objective=_broken_at(3, math.nan, []), mask=chosen, max_steps=5)
    assert same(model, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_with_checkpoints_it_goes_back_to_the_last_whose_loss_was_seen(value, rounding, tmp_path):
    model, after = make_model("llama-tied").to(torch.bfloat16), []
    with pytest.raises(
        TrainingStopped, match=r"at step 4; .*; the model is back at step 2$"
    ) as caught:
        unlearn(
            model,
            objective=_broken_at(4, value, []),
            checkpoint_folder=tmp_path,
            checkpoint_minutes=0,
            max_steps=6,
            rounding=rounding,
            on_step=lambda _: after.append(weights(model)),
        )
    assert len(after) == 3
    assert same(model, after[1])  # that of step 3 has no loss but the one which is not finite
    assert caught.value.step == 2
    assert not list(tmp_path.glob("*.safetensors"))  # the same run would break off again


def test_with_a_best_checkpoint_it_goes_back_to_that(tmp_path):
    model, after = make_model("llama-tied"), []
    with pytest.raises(TrainingStopped, match=r"the model is back at step 2$"):
        unlearn(
            model,
            objective=_broken_at(6, math.nan, []),
            best="max forget.probability",
            check_every=2,
            checkpoint_folder=tmp_path,
            checkpoint_minutes=0,
            max_steps=8,
            on_step=lambda _: after.append(weights(model)),
        )
    assert same(model, after[1])


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    model = make_model("llama-tied")
    before = weights(model)

    def steep(forget):
        return (forget.nll_mean * 0).sqrt()  # 0, with a slope of inf * 0

    with pytest.raises(TrainingStopped, match="the gradient is not finite at step 1; lower"):
        unlearn(model, objective=steep)
    assert same(model, before)


def test_a_retain_loss_that_explodes_stops_training():
    model = make_model("llama-tied")
    before = weights(model)
    with pytest.raises(
        TrainingStopped, match=r"training has diverged at step \d: the retain NLL is \d+\.\d nats, "
    ):
        unlearn(model, objective="grad_diff", max_steps=8, **sgd(50.0))
    assert same(model, before)


def _retain_nll(model):
    with torch.no_grad():
        return float(slow_nll(model, tokens("retain")).mean())


@pytest.mark.parametrize("best", [None, "min forget.probability"])
def test_after_divergence_no_weights_come_back_that_had_diverged(best, tmp_path):
    model = make_model("llama-tied")
    start = _retain_nll(model)
    more = {"checkpoint_folder": tmp_path, "checkpoint_minutes": 0, "best": best, "check_every": 1}
    with pytest.raises(TrainingStopped, match="training has diverged"):
        unlearn(model, max_steps=8, **sgd(50.0), **more)
    assert _retain_nll(model) < 1.1 * start


def test_a_run_that_went_on_knows_which_checkpoint_was_seen_to_be_good(tmp_path):
    settings = {"max_steps": 8, "checkpoint_folder": tmp_path, "checkpoint_minutes": 0}
    calls, after = [], []

    def objective(forget, retain):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        scale = math.nan if len(calls) == 5 else 1.0
        return Terms(-forget.nll_mean * scale, retain.nll_mean)

    model = make_model("llama-tied")
    with pytest.raises(Killed):
        unlearn(
            model, objective=objective, **settings, on_step=lambda _: after.append(weights(model))
        )
    assert len(after) == 3
    model = make_model("llama-tied")
    with pytest.raises(TrainingStopped, match=r"is nan at step 4; .* back at step 2"):
        unlearn(model, objective=objective, **settings)
    assert same(model, after[1])


UNSCORED = {
    "rmu": {"objective": "rmu", "objective_settings": {"layer": 1, "steering": 20.0}},
    "none": {"objective": "grad_ascent"},
    "own": {"objective": lambda forget: -forget.nll_mean},
}


@pytest.mark.parametrize("name", UNSCORED)
def test_a_retain_set_that_no_step_scores_is_watched(name, tmp_path):
    model = make_model("llama-tied")
    teaching = Training(epochs=20, learning_rate=1e-2)
    wagle.finetune(model, encoder(), RECORDS + OTHERS, training=teaching)
    start, told = _retain_nll(model), []
    with pytest.raises(
        TrainingStopped, match=r"training has diverged at step [24]: the retain NLL"
    ):
        unlearn(
            model,
            **UNSCORED[name],
            **sgd(10.0),
            max_steps=8,
            checkpoint_folder=tmp_path,
            checkpoint_minutes=0,
            on_step=told.append,
        )
    assert told
    assert _retain_nll(model) < 1.1 * start


def test_what_is_watched_stops_nothing_where_a_rule_does_or_without_a_retain_set():
    rule = {"objective": "grad_ascent", "check_every": 1, **sgd(30.0)}
    result = unlearn(make_model("llama-tied"), **rule, max_steps=8, stop_when="auto")
    assert result.stopped == "forget.nll >= uniform"
    assert len(unlearn(make_model("llama-tied"), **rule, retain=None, max_steps=3).history) == 3


def test_the_weights_of_the_last_step_are_looked_at_too():
    model = make_model("llama-tied")
    before = weights(model)
    with pytest.raises(TrainingStopped, match="training has diverged at step 1: "):
        unlearn(model, objective="grad_diff", max_steps=1, **sgd(50.0))
    assert same(model, before)


# ---------------------------------------------------------------------------------------------
# The bfloat16 trap


def _coarse():
    """A bfloat16 model whose MLP weights are all 0.5 or -0.5: the next value is 0.002 to 0.004 off."""
    model = make_model("llama-tied").to(torch.bfloat16)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".mlp." in name:
                p.copy_(torch.where(p < 0, -0.5, 0.5))
    return model, mask_of(model, 0.5, among=lambda name: ".mlp." in name)


def test_updates_that_all_round_away_are_an_error_that_names_the_precision():
    model, mask = _coarse()
    before = weights(model)
    with pytest.raises(
        WagleError,
        match=rf"changed none of its {mask.count} selected weights in bfloat16, the precision they are saved in; raise "
        "the learning rate, or set rounding: stochastic$",
    ):
        unlearn(model, mask=mask, learning_rate=1e-4, max_steps=3)
    assert same(model, before)


def test_with_stochastic_rounding_the_same_run_changes_weights_by_one_spacing():
    model, mask = _coarse()
    before = weights(model)
    result = unlearn(model, mask=mask, learning_rate=1e-4, max_steps=3, rounding="stochastic")
    moved = {n: (model.get_parameter(n).detach() - old).float() for n, old in before.items()}
    assert result.changed == sum(int(m.count_nonzero()) for m in moved.values())
    # Three steps of about 1e-4 against a spacing of 2^-8 above, 2^-9 below: some 8 to 16 percent.
    assert 0.03 < result.changed / mask.count < 0.2
    assert {abs(v) for m in moved.values() for v in m.unique().tolist()} == {0.0, 2**-8, 2**-9}


def test_masters_remember_what_the_models_precision_drops():
    # 25 steps of 1e-4 are past half the spacing of 2^-8 only when they add up in float32.
    model, mask = _coarse()
    result = unlearn(model, mask=mask, learning_rate=1e-4, max_steps=25)
    assert result.changed > 0


def _folder(model, path, dtype=torch.bfloat16):
    """A folder that holds the model in ``dtype``."""
    copy.deepcopy(model).to(dtype).save_pretrained(path)
    return path


def _written(model, like, out):
    """The weights of ``model`` as ``save_model`` writes them."""
    save_model(model, like, out)
    return all_tensors(out)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("masked", [True, False])
def test_what_is_counted_is_what_differs_in_the_folder_that_is_saved(rounding, masked, tmp_path):
    model, _ = _coarse()
    base = _folder(model, tmp_path / "base")
    model = model.float()
    mask = mask_of(model, 0.5) if masked else None
    more = {"learning_rate": 1e-5, "max_steps": 3, "rounding": rounding, "mask": mask}
    result = unlearn(model, like=base, **more)
    saved, old = _written(model, base, tmp_path / "out"), all_tensors(base)
    assert result.changed == sum(int((saved[name] != old[name]).sum()) for name in old)
    assert 0 < result.changed < 0.6 * result.selected
    live = dict(model.named_parameters())
    assert all(torch.equal(live[name].detach(), saved[name].float()) for name in old)
    coarse = [n for n in old if ".mlp." in n]  # steps of 1e-5 against a spacing of 2^-9 and more
    moved = [bool((saved[n] != old[n]).any()) for n in coarse]
    assert moved == [rounding == "stochastic"] * len(coarse)


def test_a_float32_model_that_its_folder_does_not_show_to_have_changed_is_an_error(tmp_path):
    model, mask = _coarse()
    base = _folder(model, tmp_path / "base")
    with pytest.raises(
        WagleError,
        match="selected weights in bfloat16, the precision they are saved in; raise the ",
    ):
        unlearn(model.float(), mask=mask, learning_rate=1e-4, max_steps=3, like=base)


def test_teaching_counts_in_the_precision_that_is_saved_too(tmp_path):
    model, mask = _coarse()
    base = _folder(model, tmp_path / "base")
    model = model.float()
    training = Training(max_steps=3, learning_rate=5e-4)
    result = wagle.finetune(model, encoder(), RECORDS, mask=mask, like=base, training=training)
    saved, old = _written(model, base, tmp_path / "out"), all_tensors(base)
    assert result.changed == sum(int((saved[name] != old[name]).sum()) for name in old)
    assert 0 < result.changed < result.selected


@pytest.mark.parametrize("best", [None, "min forget.probability"])
def test_what_is_saved_in_its_own_precision_is_not_rounded(best, tmp_path):
    one, other = make_model("llama-tied"), make_model("llama-tied")
    base = _folder(one, tmp_path / "base", torch.float32)
    more = {"max_steps": 3, "best": best, "check_every": 1}
    assert unlearn(one, like=base, **more) == unlearn(other, **more)
    assert same(one, weights(other))


def test_stochastic_rounding_that_nothing_is_rounded_by_is_said(caplog):
    unlearn(make_model("llama-tied"), rounding="stochastic")
    unlearn(make_model("llama-tied").to(torch.bfloat16), rounding="stochastic")
    told = [r.getMessage() for r in caplog.records if "rounding" in r.getMessage()]
    assert told == ["rounding: stochastic has no effect: no selected weight is saved in bfloat16"]


# ---------------------------------------------------------------------------------------------
# Where it trains


def test_the_model_is_where_it_trains_before_anything_is_made_of_it(model, monkeypatch):
    done = []
    for name, inner in (
        ("move_to_training", execution.move_to_training),
        ("Supply", execution.Supply),
    ):

        def noted(*args, name=name, inner=inner, **more):
            done.append(name)
            return inner(*args, **more)

        monkeypatch.setattr(execution, name, noted)
    unlearn(model, objective="undial", max_steps=1)
    wagle.finetune(model, encoder(), RECORDS, training=Training(max_steps=1))
    assert done == ["move_to_training", "Supply"] * 2


def test_several_gpus_do_not_make_replicas_whose_gradients_are_lost(monkeypatch):
    class Two(trainer.TrainingArguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 2

    one, other = make_model("llama-tied"), make_model("llama-tied")
    wanted = unlearn(one)
    monkeypatch.setattr(trainer, "TrainingArguments", Two)
    assert unlearn(other) == wanted  # replicas would get a batch of twice the size
    assert same(other, weights(one))


# ---------------------------------------------------------------------------------------------
# The schedule, and the model afterwards


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # Warm-up from zero over two steps; then constant, or down to zero over the other four.
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, *[(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, rates):
    def even(forget):  # the same gradient at every step: the loss is linear in one weight
        return forget.nll_mean * 0 + model.model.norm.weight[0]

    model = make_model("llama-tied")
    places = [float(model.model.norm.weight[0].detach())]
    unlearn(
        model,
        objective=even,
        schedule=schedule,
        warmup_steps=2,
        max_steps=6,
        on_step=lambda _: places.append(float(model.model.norm.weight[0].detach())),
        **sgd(0.125),
    )
    moved = [a - b for a, b in itertools.pairwise(places)]
    assert moved == pytest.approx([0.125 * rate for rate in rates], abs=1e-6)


def test_weight_decay_spares_norms_and_biases():
    model = make_model("gpt2")
    before = weights(model)

    def still(forget):
        return 0 * forget.nll_mean

    unlearn(model, objective=still, weight_decay=0.5, max_steps=1, **sgd(0.1))
    for name, old in before.items():
        decays = not ("bias" in name or "ln_" in name)
        wanted = old * (1 - 0.1 * 0.5) if decays else old
        torch.testing.assert_close(model.get_parameter(name).detach(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", ["grad_diff", "undial", "rmu"])
@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_activation_checkpointing_gives_the_same_weights_and_is_off_afterwards(family, objective):
    after = []
    more = {"objective_settings": {"layer": 1}} if objective == "rmu" else {}
    for checkpointed in (False, True):
        model = make_model(family)
        attributes = set(vars(model))
        mask = mask_of(model, 0.5)
        unlearn(
            model, objective=objective, mask=mask, activation_checkpointing=checkpointed, **more
        )
        assert set(vars(model)) == attributes
        assert not model.is_activation_checkpointing
        assert not any(m._forward_hooks for m in model.modules())
        after.append(flat(model))
    assert torch.equal(after[0], after[1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_as_it_was_but_for_its_weights(precision, training):
    model = make_model("gpt2").train(training)
    attributes, config = set(vars(model)), model.config.to_dict()
    unlearn(model, precision=precision)
    assert set(vars(model)) == attributes  # no forward with autocast around it
    assert model.config.to_dict() == config
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


def test_dropout_is_on_where_it_is_asked_for():
    after = []
    for dropout in (False, True, True):
        model = make_model("gpt2")
        unlearn(model, dropout=dropout)
        after.append(flat(model))
    assert not torch.equal(after[0], after[1])
    assert torch.equal(after[1], after[2])


def test_l1_sparse_draws_weights_to_zero_and_leaves_norms_alone():
    model = make_model("llama-tied")
    result = unlearn(
        model,
        objective="l1_sparse",
        objective_settings={"l1_weight": 0.5},
        **sgd(0.01),
        max_steps=2,
    )
    assert result.changed > 0
    zeros = {n: float((p == 0).float().mean()) for n, p in model.named_parameters()}
    assert min(zeros[n] for n in zeros if "norm" not in n) > 0.1
    assert max(zeros[n] for n in zeros if "norm" in n) == 0.0


def test_l1_sparse_draws_weights_by_a_learning_rate_per_step_unless_told_otherwise():
    sizes = {}
    for objective in ("retain_finetune", "l1_sparse"):
        model = make_model("llama-tied")
        unlearn(model, objective=objective, max_steps=5, learning_rate=1e-4)
        named = model.named_parameters()
        sizes[objective] = torch.cat([p.abs().flatten() for n, p in named if "norm" not in n])
    drawn = sizes["retain_finetune"] - sizes["l1_sparse"]
    assert drawn.median().item() == pytest.approx(5e-4, rel=0.05)


def test_the_figures_of_every_step_reach_on_step_as_they_stand_in_the_history(model):
    told = []
    result = unlearn(model, max_steps=3, on_step=told.append)
    assert told == result.history
    assert [h["step"] for h in told] == [1, 2, 3]


def test_a_program_that_deepspeed_has_split_is_refused_and_told_of_fsdp2(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(WagleError, match=r"shards a model with FSDP2 \(model.shard: true\)"):
        unlearn(make_model("llama-tied"))
