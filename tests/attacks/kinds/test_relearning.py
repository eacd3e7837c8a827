"""Relearning: which records are taught, the curve, and that the model is what it was."""

import copy
import math

import pytest
import torch

from tests.conftest import make_model
from wagle.attacks.kinds.relearning.curve import Curve, relearn
from wagle.attacks.kinds.relearning.picking import pick_benign, pick_exact
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.model.quantization.quantizing import quantize
from wagle.model.scoring import answer_nll
from wagle.recipe.sections.training import Training
from wagle.system.errors import TrainingStopped, WagleError
from wagle.unlearning.forgetting import forget_probability
from wagle.unlearning.lora import add_lora
from wagle.unlearning.teaching import finetune

SMALL = {"steps": [0, 1, 3], "share": 0.5, "learning_rate": 5e-3}  # which keep the attack short
STATES, START = ["step 0", "step 1", "step 3"], "step 0"


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[n], before[n]) for n in now)


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer)


@pytest.fixture
def probability(encoder, forget):
    tokens = encoder.encode(read_records(forget))
    return lambda model: {"forget.probability": forget_probability(model, tokens)}


# ---------------------------------------------------------------------------------------------
# Which records


def many(count):
    return [
        {"question": f"What is thing {i}?", "answer": f"It is number {i}."} for i in range(count)
    ]


@pytest.mark.parametrize(
    ("share", "count"), [(0.001, 1), (0.01, 1), (0.07, 7), (0.29, 29), (1, 100)]
)
def test_exact_takes_the_floor_of_the_share_and_at_least_one_record(share, count):
    picked = pick_exact(many(100), share)
    assert len(picked.records) == count
    assert len(picked.held_out) == 100 - count
    assert {r.place for r in picked.records}.isdisjoint(r.place for r in picked.held_out)
    assert {r.place for r in (*picked.records, *picked.held_out)} == {
        f"forget[{i}]" for i in range(100)
    }


def test_smaller_shares_are_contained_in_larger_ones_and_the_seed_decides():
    def places(share, seed=0):
        return {record.place for record in pick_exact(many(40), share, seed=seed).records}

    assert places(0.05) < places(0.25) < places(1.0)
    assert places(0.25) == places(0.25)
    assert places(0.25) != places(0.25, seed=1)


def test_an_exact_repeat_of_a_taught_record_is_not_held_out():
    for seed in range(4):
        picked = pick_exact(many(3) * 2, 1 / 6, seed=seed)
        assert len(picked.records) == 1
        assert len(picked.held_out) == 4
        assert picked.records[0].prompt not in {record.prompt for record in picked.held_out}


def test_benign_takes_as_many_records_of_the_other_set_and_holds_all_forget_records_out(
    forget, retain
):
    picked = pick_benign(forget, retain, 0.5)
    assert len(picked.records) == 3
    assert all(record.place.startswith("benign[") for record in picked.records)
    assert [record.prompt for record in picked.held_out] == [row["question"] for row in forget]


def test_benign_records_that_teach_what_is_gone_or_are_too_few_are_refused(forget, retain):
    with pytest.raises(WagleError, match=r"forget\[1\] and benign\[2\] are the same record"):
        pick_benign(forget, [*retain[:2], forget[1]], 0.5)
    with pytest.raises(WagleError, match="asks for 6 benign ones, and there are 5"):
        pick_benign(forget, retain[:5], 1.0)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, math.nan])
def test_a_share_outside_0_to_1_is_refused(share, forget):
    with pytest.raises(WagleError, match="share is"):
        pick_exact(forget, share)


# ---------------------------------------------------------------------------------------------
# The curve


@pytest.mark.parametrize("lora", [False, True])
def test_relearning_raises_the_probability_and_leaves_the_model_bit_for_bit_as_it_was(
    model, encoder, forget, probability, lora
):
    before, modules = bits(model), [type(m) for m in model.modules()]
    flags, own = [p.requires_grad for p in model.parameters()], set(vars(model))
    rate = 1e-2 if lora else 1e-3
    curve = relearn(
        model,
        encoder,
        forget,
        steps=(0, 2, 20),
        learning_rate=rate,
        lora=lora,
        evaluate=probability,
    )
    assert list(curve.points) == [0, 2, 20]
    assert curve.points[0] == probability(model)
    rise = curve.rise("forget.probability")
    assert rise[0] == 0 < rise[2] < rise[20]
    assert len(curve.losses) == 20
    assert curve.losses[-1] < curve.losses[0]
    assert curve.changed > 0
    assert same(model, before)
    assert [type(m) for m in model.modules()] == modules
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert set(vars(model)) == own
    assert not model.training


def test_a_curve_is_plain_adamw_without_decay_on_whole_weights(encoder, forget):
    seen = []
    model = make_model("llama-untied")
    relearn(
        model,
        encoder,
        forget[:1],
        steps=(0, 1, 3),
        learning_rate=1e-3,
        batch_size=1,
        evaluate=lambda m: seen.append(bits(m)) or {},
    )
    slow = make_model("llama-untied")
    optimizer = torch.optim.AdamW(slow.parameters(), lr=1e-3, weight_decay=0.0)
    tokens = encoder.encode(read_records(forget[:1]))[0]
    batch = {
        "input_ids": torch.tensor([tokens.ids]),
        "attention_mask": torch.ones(1, len(tokens.ids), dtype=torch.int64),
        "position_ids": torch.arange(len(tokens.ids)).unsqueeze(0),
        "scored": torch.tensor([tokens.scored]),
    }
    for step in range(1, 4):
        answer_nll(slow, batch).nll_mean.mean().backward()
        torch.nn.utils.clip_grad_norm_(slow.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step != 2:
            for name, tensor in seen[1 if step == 1 else 2].items():
                torch.testing.assert_close(tensor, slow.state_dict()[name], atol=2e-5, rtol=0)


def test_a_point_does_not_depend_on_the_steps_that_follow_or_on_other_points(
    model, encoder, forget, probability
):
    def curve(*steps):
        return relearn(
            model, encoder, forget, steps=steps, learning_rate=1e-3, evaluate=probability
        ).points

    long = curve(0, 1, 2, 5, 10)
    assert curve(0, 5) == {0: long[0], 5: long[5]}


def test_the_last_point_is_what_finetune_gives(model, encoder, forget, probability):
    curve = relearn(
        model, encoder, forget, steps=(0, 4), learning_rate=1e-3, seed=3, evaluate=probability
    )
    training = Training(max_steps=4, learning_rate=1e-3, batch_size=4)
    finetune(model, encoder, forget, training=training, seed=3)
    assert curve.points[4] == probability(model)


def test_the_order_of_records_is_a_function_of_seed_and_record_alone(
    model, encoder, forget, probability
):
    def losses(records, seed):
        return relearn(
            model, encoder, records, steps=(0, 3), batch_size=2, seed=seed, evaluate=probability
        ).losses

    assert losses(forget, 0) == losses(forget[::-1], 0)
    assert losses(forget, 0) != losses(forget, 1)


def test_step_0_alone_trains_nothing(model, encoder, forget, probability):
    assert relearn(model, encoder, forget, steps=[0], evaluate=probability) == Curve(
        {0: probability(model)}, [], 0
    )


def test_evaluate_sees_the_model_in_evaluation_mode_without_gradients(model, encoder, forget):
    modes = []

    def evaluate(live):
        modes.append((live is model, live.training, torch.is_grad_enabled()))
        return {"x": 1.0}

    model.train()
    relearn(model, encoder, forget, steps=(0, 1), lora=True, evaluate=evaluate)
    assert modes == [(True, False, False)] * 2
    assert model.training


def test_frozen_weights_are_trained_and_frozen_again(model, encoder, forget, probability):
    model.requires_grad_(False)
    before = bits(model)
    curve = relearn(model, encoder, forget, steps=(0, 2), learning_rate=1e-3, evaluate=probability)
    assert curve.changed > 0
    assert not any(p.requires_grad for p in model.parameters())
    assert same(model, before)


@pytest.mark.parametrize("lora", [False, True])
def test_the_model_is_as_before_when_evaluate_fails_on_the_way(model, encoder, forget, lora):
    before, modules, calls = bits(model), [type(m) for m in model.modules()], []

    def evaluate(_):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no more")
        return {}

    with pytest.raises(RuntimeError, match="no more"):
        relearn(
            model,
            encoder,
            forget,
            steps=(0, 1, 2, 3),
            learning_rate=1e-3,
            lora=lora,
            evaluate=evaluate,
        )
    assert same(model, before)
    assert [type(m) for m in model.modules()] == modules


def test_a_bfloat16_model_comes_back_too(encoder, forget, probability):
    model = make_model("llama-tied").bfloat16()
    before = bits(model)
    relearn(model, encoder, forget, steps=(0, 2), learning_rate=1e-2, evaluate=probability)
    assert same(model, before)


def test_a_rate_that_leaves_the_numbers_stops_and_restores(model, encoder, forget):
    before = bits(model)
    with pytest.raises(TrainingStopped):
        relearn(
            model,
            encoder,
            forget,
            steps=(0, 20),
            learning_rate=1e30,
            evaluate=lambda _: {},
        )
    assert same(model, before)


def test_a_figure_that_is_not_finite_is_named_with_its_step(model, encoder, forget):
    values = iter([0.5, math.nan])
    with pytest.raises(WagleError, match="rouge is nan after 1 steps of relearning"):
        relearn(model, encoder, forget, steps=(0, 1), evaluate=lambda _: {"rouge": next(values)})


@pytest.mark.parametrize("steps", [(), (1, 2), (0, 2, 2), (0, 5, 3)])
def test_steps_that_do_not_ascend_from_0_are_refused(steps, model, encoder, forget):
    with pytest.raises(WagleError, match="start with 0, the model before, and ascend"):
        relearn(model, encoder, forget, steps=steps, evaluate=lambda _: {})


@pytest.mark.parametrize(
    "bad", [{"learning_rate": 0}, {"learning_rate": math.inf}, {"batch_size": 0}]
)
def test_a_rate_or_a_batch_of_nothing_is_refused(bad, model, encoder, forget):
    with pytest.raises(WagleError, match=r"learning_rate is .* and batch_size"):
        relearn(model, encoder, forget, evaluate=lambda _: {}, **bad)


def test_adapters_and_quantised_models_are_refused(model, encoder, forget):
    for how in ("nf4", "int8"):
        with pytest.raises(WagleError, match="is quantised, so it cannot be trained"):
            relearn(quantize(model, how), encoder, forget, evaluate=lambda _: {})
    with pytest.raises(WagleError, match="without an adapter; merge it"):
        relearn(add_lora(copy.deepcopy(model)), encoder, forget, evaluate=lambda _: {})


def test_a_figure_that_a_curve_lacks_is_named():
    with pytest.raises(WagleError, match=r"no figure 'q' \(it has p\)"):
        Curve({0: {"p": 0.1}}, [], 0).rise("q")
