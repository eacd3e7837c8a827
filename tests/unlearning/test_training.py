import math

import pytest
import torch
from torch import nn

import wagle
from tests.conftest import make_model
from wagle.data.batches import token_batches
from wagle.data.tokens import Encoder
from wagle.errors import TrainingStopped, WagleError
from wagle.model import records_nll
from wagle.unlearning.options import Training
from wagle.unlearning.training import forget_probability


def _weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def _mask(model, tokenizer, forget, retain, ratio=0.3, **more):
    store = wagle.gradients(model, tokenizer, forget, retain)
    return wagle.Mask.from_scores(store, ratio=ratio, **more)


OPTIMIZERS = [
    ("AdamW", {}),
    ("SGD", {"momentum": 0.9}),
    ("RMSprop", {}),
    ("Adamax", {}),
    ("Rprop", {}),
]


@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unselected_weights_are_bit_identical(
    tokenizer, forget, retain, optimizer, settings, dtype
):
    model = make_model("llama-tied").to(dtype)
    mask = _mask(model, tokenizer, forget, retain)
    before = _weights(model)
    decay = 0.0 if optimizer == "Rprop" else 0.1
    result = wagle.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        mask=mask,
        training=Training(
            max_steps=6,
            learning_rate=1e-2,
            batch_size=2,
            accumulation=2,
            weight_decay=decay,
            optimizer=optimizer,
            optimizer_settings=settings,
            max_grad_norm=0.5,
        ),
    )
    for name, old in before.items():
        new = model.get_parameter(name).detach()
        assert torch.equal(new[~mask[name]], old[~mask[name]]), name
    assert result.selected == mask.count
    changed = sum(int((model.get_parameter(n) != before[n]).sum()) for n in before)
    assert result.changed == changed > 0


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt"])
def test_batch_size_and_accumulation_do_not_change_the_result(family, tokenizer, forget, retain):
    weights = []
    for batch, accumulation in ((6, 1), (2, 3), (1, 6), (4, 2)):
        model = make_model(family)  # GPT-2 and OPT come with dropout 0.1
        wagle.unlearn(
            model,
            tokenizer,
            forget,
            retain,
            objective="grad_diff",
            training=Training(
                max_steps=3 if batch * accumulation == 6 else 2,
                learning_rate=0.1,
                batch_size=batch,
                accumulation=accumulation,
                optimizer="SGD",
                max_grad_norm=0.0,
            ),
        )
        if batch * accumulation == 6:
            weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=3e-6)


def test_one_sgd_step_moves_along_the_gradient_of_the_mean_over_records(tokenizer, forget, retain):
    model = make_model("llama-untied")
    before = _weights(model)
    store = wagle.gradients(model, tokenizer, forget, retain)
    mask = wagle.Mask.from_scores(store, ratio=0.5)
    wagle.unlearn(
        model,
        tokenizer,
        forget,
        objective="grad_ascent",
        mask=mask,
        training=Training(
            max_steps=1, batch_size=6, learning_rate=0.5, optimizer="SGD", max_grad_norm=0
        ),
    )
    for name, old in before.items():
        expected = old + 0.5 * store.get("grad_forget", name) * mask[name]
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=0, atol=1e-6)


def test_clipping_is_by_the_norm_of_the_selected_gradients(tokenizer, forget, retain):
    model = make_model("llama-tied")
    before = _weights(model)
    store = wagle.gradients(model, tokenizer, forget, retain)
    mask = wagle.Mask.from_scores(store, ratio=0.1)
    norm = math.sqrt(sum(float((store.get("grad_forget", n)[mask[n]] ** 2).sum()) for n in mask))
    result = wagle.unlearn(
        model,
        tokenizer,
        forget,
        objective="grad_ascent",
        mask=mask,
        training=Training(
            max_steps=1, batch_size=6, learning_rate=1.0, optimizer="SGD", max_grad_norm=norm / 4
        ),
    )
    assert result.history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    moved = math.sqrt(
        sum(float(((model.get_parameter(n).detach() - before[n]) ** 2).sum()) for n in before)
    )
    assert moved == pytest.approx(norm / 4, rel=1e-3)


def test_ratio_one_equals_the_unmasked_run_bit_for_bit(tokenizer, forget, retain):
    full = make_model("llama-tied")
    mask = _mask(full, tokenizer, forget, retain, ratio=1.0)
    free = make_model("llama-tied")
    training = Training(max_steps=4, learning_rate=1e-2, batch_size=3, weight_decay=0.1)
    wagle.unlearn(full, tokenizer, forget, retain, mask=mask, training=training)
    wagle.unlearn(free, tokenizer, forget, retain, training=training)
    assert all(torch.equal(a, b) for a, b in zip(full.parameters(), free.parameters(), strict=True))


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(tokenizer, forget, retain):
    def run(seed):
        model = make_model("llama-tied")
        training = Training(max_steps=4, learning_rate=1e-2, batch_size=2)
        wagle.unlearn(model, tokenizer, forget, retain, seed=seed, training=training)
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_npo_starts_at_its_known_value_and_its_reference_is_the_original_model(
    model, tokenizer, forget, retain
):
    result = wagle.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        training=Training(max_steps=2, batch_size=6, learning_rate=1e-3),
    )
    assert result.history[0]["forget_loss"] == pytest.approx(20 * math.log(2), rel=1e-4)
    assert result.history[1]["forget_loss"] < result.history[0]["forget_loss"]
    assert result.history[0]["retain_loss"] == pytest.approx(result.history[0]["retain_nll"])
    assert result.objective == {
        "name": "npo",
        "beta": 0.1,
        "forget_weight": 1.0,
        "retain_weight": 1.0,
    }


def test_unlearning_lowers_the_forget_probability_and_stops_at_the_reference(
    tokenizer, forget, retain
):
    model = make_model("llama-tied")
    wagle.finetune(
        model, tokenizer, forget + retain, training=Training(epochs=40, learning_rate=1e-2)
    )
    tokens = Encoder(tokenizer).encode(wagle.read_records(forget, name="forget"))
    start = forget_probability(model, tokens)
    result = wagle.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        stop_at=start / 4,
        check_every=1,
        training=Training(epochs=200, learning_rate=1e-3, batch_size=6),
    )
    assert result.stopped == "reference"
    assert result.history[-1]["forget_probability"] <= start / 4
    assert all(h["forget_probability"] > start / 4 for h in result.history[:-1])
    assert forget_probability(model, tokens) == pytest.approx(
        result.history[-1]["forget_probability"]
    )


def test_going_clearly_past_the_reference_is_a_warning(tokenizer, forget, retain, caplog):
    model = make_model("llama-tied")
    wagle.finetune(
        model, tokenizer, forget + retain, training=Training(epochs=40, learning_rate=1e-2)
    )
    wagle.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        stop_at=0.5,
        check_every=20,
        training=Training(max_steps=20, learning_rate=1e-2),
    )
    assert "over-unlearned: the forget probability is" in caplog.text


def test_teaching_into_a_mask_leaves_the_rest_alone(tokenizer, forget, retain):
    model = make_model("llama-tied")
    mask = _mask(model, tokenizer, forget, retain, include=["*.mlp.*"], ratio=0.5)
    before = _weights(model)
    wagle.finetune(
        model, tokenizer, forget, mask=mask, training=Training(max_steps=5, learning_rate=1e-2)
    )
    for name, old in before.items():
        assert torch.equal(model.get_parameter(name)[~mask[name]], old[~mask[name]])
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_model_comes_back_as_it_was_but_for_its_weights(tokenizer, forget, retain, precision):
    model = make_model("gpt2")
    attributes, config = set(vars(model)), model.config.to_dict()
    training = Training(max_steps=2, learning_rate=1e-3, precision=precision)
    wagle.unlearn(model, tokenizer, forget, retain, training=training)
    assert set(vars(model)) == attributes  # no forward with autocast around it
    assert model.config.to_dict() == config
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_pre_tokenised_records_need_no_tokenizer(model):
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}]
    others = [{"input_ids": [9, 10, 11], "labels": [-100, 10, 11]}]
    result = wagle.unlearn(
        model, None, rows, others, training=Training(max_steps=2, learning_rate=1e-3)
    )
    assert result.changed > 0


def test_a_run_that_changes_nothing_is_an_error(tokenizer, forget, retain):
    model = make_model("llama-tied").to(torch.bfloat16)
    # Without the zeros of the padding row: they can take any small value.
    mask = _mask(model, tokenizer, forget, retain, include=["*.mlp.*"])
    training = Training(max_steps=1, learning_rate=1e-12)
    with pytest.raises(WagleError, match=r"changed none of its \d+ selected weights in bfloat16"):
        wagle.unlearn(model, tokenizer, forget, retain, mask=mask, training=training)


def test_a_loss_that_is_not_finite_stops_before_the_step(tokenizer, forget, retain):
    model = make_model("llama-untied")
    with torch.no_grad():
        model.lm_head.weight[7, 0] = float("inf")
    before = _weights(model)
    with pytest.raises(
        TrainingStopped, match=r"the loss of (forget|retain)\[\d\] is \w+ at step 1"
    ):
        wagle.unlearn(model, tokenizer, forget, retain, objective="grad_diff")
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "nop"}, "unknown objective 'nop'; did you mean 'npo'"),
        ({"retain": None}, "objective npo needs a retain set"),
        ({"training": Training(optimizer="LBFGS")}, "unknown element-wise optimizer 'LBFGS'"),
        (
            {"training": Training(optimizer="AdamW", optimizer_settings={"beta": 1})},
            "cannot make AdamW",
        ),
        ({"pairing": "shufle"}, "unknown pairing 'shufle'; did you mean 'shuffle'"),
    ],
)
def test_wrong_settings_are_one_line_errors(model, tokenizer, forget, retain, change, message):
    with pytest.raises(WagleError, match=message):
        wagle.unlearn(
            **{"model": model, "tokenizer": tokenizer, "forget": forget, "retain": retain, **change}
        )


def test_an_own_objective_is_accepted_wherever_a_name_is(model, tokenizer, forget, retain):
    from wagle.unlearning.objectives import Terms

    def gentle(forget, retain, *, scale: float = 0.5):
        return Terms(-scale * forget.nll_mean, retain.nll_mean)

    result = wagle.unlearn(
        model,
        tokenizer,
        forget,
        retain,
        objective=gentle,
        training=Training(max_steps=1, learning_rate=1e-3),
    )
    assert result.objective == {"name": "gentle", "scale": 0.5}


def test_a_batchs_loss_is_the_mean_of_its_records_losses(any_model, tokenizer, forget, retain):
    tokens = Encoder(tokenizer).encode(wagle.read_records(forget + retain, name="forget"))
    together = records_nll(any_model, token_batches(tokens, 10_000), len(tokens), "float32")
    alone = torch.stack(
        [records_nll(any_model, token_batches([t], 1), 1, "float32").nll_mean[0] for t in tokens]
    )
    torch.testing.assert_close(together.nll_mean, alone, rtol=1e-5, atol=1e-5)


def test_nn_modules_that_hold_dropout_as_a_number_are_switched_off():
    from wagle.model import without_dropout

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_dropout = 0.3
            self.drop = nn.Dropout(0.2)

    module = Attention()
    with without_dropout(module):
        assert (module.attention_dropout, module.drop.p) == (0.0, 0.0)
    assert (module.attention_dropout, module.drop.p) == (0.3, 0.2)
