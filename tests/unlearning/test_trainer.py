import itertools
import math

import pytest
import torch

from tests.conftest import make_model
from tests.unlearning.conftest import flat, mask_of, same, sgd, unlearn, weights
from wagle.errors import TrainingStopped, WagleError
from wagle.unlearning.objectives.shapes import Terms

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
def test_with_checkpoints_it_goes_back_to_the_last_one(value, rounding, tmp_path):
    model, after = make_model("llama-tied").to(torch.bfloat16), []
    with pytest.raises(TrainingStopped, match=r"at step 4; .*; the model is back at step 3$"):
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
    assert same(model, after[-1])


def test_with_a_best_checkpoint_it_goes_back_to_that():
    model, after = make_model("llama-tied"), []
    with pytest.raises(TrainingStopped, match=r"the model is back at step 3$"):
        unlearn(
            model,
            objective=_broken_at(4, math.nan, []),
            best="min forget.probability",
            check_every=1,
            max_steps=6,
            on_step=lambda _: after.append(weights(model)),
        )
    assert same(model, after[2])


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
        match=rf"changed none of its {mask.count} selected weights in bfloat16; raise the learning "
        "rate, set rounding: stochastic, or load the model in float32",
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


def test_the_figures_of_every_step_reach_on_step_as_they_stand_in_the_history(model):
    told = []
    result = unlearn(model, max_steps=3, on_step=told.append)
    assert told == result.history
    assert [h["step"] for h in told] == [1, 2, 3]
