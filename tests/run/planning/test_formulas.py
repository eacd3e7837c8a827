"""The needs of stages, worked out by hand for a model of 1000 weights, and counted by torch."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from wagle.run.planning import formulas, terms
from wagle.run.planning.formulas import Asked, Steps
from wagle.run.planning.terms import HEAP, LIBRARIES, Batch, How, Shape

SHAPE = Shape(
    stem=200,
    blocks=3,
    block=250,
    head=50,
    total=1000,
    largest=200,
    largest_in_block=80,
    tied=False,
    hidden=10,
    inner=20,
    heads=2,
    kv_heads=1,
    head_dim=5,
    vocabulary=20,
    stored=2,
    linear=600,
    ends=90,
)
BATCH = Batch(records=2, width=8, scored=6)
RUN = Steps(BATCH, steps=4, tokens=128.0, scored=48.0, looked=32.0)
FULL, HALF = How(), How(half=True)


def test_a_forward_pass_costs_two_operations_a_weight_and_the_head_only_where_it_is_read():
    assert SHAPE.per_token == 2 * 750
    assert SHAPE.per_logit == 2 * 10 * 20
    assert SHAPE.cache_per_token == 2 * 3 * 1 * 5


@pytest.mark.parametrize(
    ("how", "each"),
    [
        (How(), 4 * (70 + 30 + 80) + 4 * 8),
        (How(eager=True), 4 * (70 + 30 + 80) + 4 * 2 * 8),
        (How(half=True), 280 + 60 + 160 + 2 * 8),
        (How(half=True, eager=True), 280 + 60 + 160 + 6 * 2 * 8),
    ],
)
def test_the_activations_of_a_block_by_hand(how, each):
    assert terms.block_activations(SHAPE, BATCH, how) == each * 16
    assert terms.activations(SHAPE, BATCH, how) == pytest.approx(HEAP * 3 * each * 16)


def _saved(blocks, attention, half):
    """The bytes that torch saves for the backward pass of a tiny Llama of so many blocks."""
    config = AutoConfig.for_model(
        "llama",
        hidden_size=64,
        intermediate_size=176,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        num_hidden_layers=blocks,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).train()
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    found, alive = {}, []

    def keep(tensor):
        alive.append(tensor)  # or its place would be used again
        home = tensor.untyped_storage()
        if home.data_ptr() not in own:
            found[home.data_ptr()] = home.nbytes()
        return tensor

    ids, mask = torch.randint(0, 100, (3, 40)), torch.ones(3, 40, dtype=torch.int64)
    mask[0, 30:] = 0
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    weights = sum(
        p.numel() for n, p in model.named_parameters() if "layers.0." in n and p.dim() > 1
    )
    return sum(found.values()) - (2 * weights * blocks if half else 0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_activations_of_a_block_are_those_that_torch_saves(attention, half):
    shape = Shape(
        **{**SHAPE.__dict__, "hidden": 64, "inner": 176, "heads": 4, "head_dim": 16, "kv_heads": 2}
    )
    one = _saved(2, attention, half) - _saved(1, attention, half)
    how = How(half=half, eager=attention == "eager")
    assert terms.block_activations(shape, Batch(3, 40, 0), how) == pytest.approx(one, rel=0.02)


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_blocks_activations():
    one = terms.block_activations(SHAPE, BATCH, FULL)
    kept = terms.activations(SHAPE, BATCH, How(recompute=True))
    assert kept == pytest.approx(HEAP * (one + 4 * 3 * 10 * 16))


def test_training_in_memory_by_hand():
    found = formulas.train_whole(SHAPE, RUN, 0.05, FULL)
    assert found.memory == {
        "libraries": LIBRARIES,
        "weights": 4000.0,
        "vectors": pytest.approx(20 * 50),  # index 4, master 4, gradient 4, moments 8
        "activations": terms.activations(SHAPE, BATCH, FULL),
        "casts": 0.0,
        "logits": 2.0 * 6 * 20 * 4,
        "gradients": 800.0,
    }
    assert found.disk == {
        "model": 2000.0,
        "checkpoint": pytest.approx(12 * 50),
        "values before": pytest.approx(4 * 50),
    }
    assert found.flops == 3 * (128 * 1500 + 48 * 400) + 32 * 1500
    assert found.stepped == pytest.approx(4 * 50)


def test_dense_masters_in_float32_are_the_weights_themselves():
    assert terms.vectors(SHAPE, 1.0, FULL) == 12 * 1000
    assert terms.vectors(SHAPE, 1.0, How(held=2)) == 16 * 1000
    assert terms.vectors(SHAPE, 0.8, How(moments=0)) == pytest.approx(12 * 800)


def test_autocast_keeps_a_copy_of_blocks_and_head():
    assert terms.casts(SHAPE, HALF) == 2 * (750 + 200)
    assert terms.casts(SHAPE, How(held=2, half=True)) == 0


def test_training_by_blocks_by_hand(monkeypatch):
    monkeypatch.setattr(formulas, "SMALL", 1000)
    found = formulas.train_stream(SHAPE, RUN, 0.05, How(held=2))
    assert found.memory == {
        "libraries": LIBRARIES,
        "weights": 2.0 * (200 + 50 + 500) + 2.0 * (200 + 50),
        "vectors": pytest.approx(22 * 0.05 * 250),  # index, master, gradient, moments, value
        "activations": HEAP * terms.block_activations(SHAPE, BATCH, FULL),
        "logits": 2.0 * 6 * 20 * 4,
        "gradients": 500.0,  # of a block: larger than the stem's 400
    }
    assert found.disk == {
        "model": 2000.0,
        "vectors": pytest.approx(22 * 50),
        "entering": 4.0 * 3 * 10 * 16 * 2,
    }
    assert found.read == pytest.approx(4 * (2 * 2 * 800 + 22 * 50))
    assert found.flops == 4 * (128 * 1500 + 48 * 400) + 32 * 1500


def test_few_vectors_stay_in_memory_and_off_the_disk():
    found = formulas.train_stream(SHAPE, RUN, 0.05, How(held=2))
    assert found.memory["vectors"] == pytest.approx(22 * 50)
    assert found.disk["vectors"] == 0


def test_the_memory_of_training_by_blocks_does_not_grow_with_the_depth(monkeypatch):
    deep = Shape(**{**SHAPE.__dict__, "blocks": 12, "total": 250 + 12 * 250})
    monkeypatch.setattr(formulas, "SMALL", 1000)
    peaks = [formulas.train_stream(s, RUN, 0.05, FULL).peak for s in (SHAPE, deep)]
    assert peaks[0] == peaks[1]


def test_an_adapter_by_hand():
    found = formulas.train_lora(SHAPE, RUN, 8, FULL)
    assert found.memory["weights"] == 4000
    assert found.memory["vectors"] == 16 * 8 * 90
    assert "gradients" not in found.memory
    four = formulas.train_lora(SHAPE, RUN, 8, FULL, quantised=True)
    assert four.memory["weights"] == 4 * 400 + 600 * 4.5 / 8


def test_attribution_by_hand():
    run = Steps(BATCH, steps=2, tokens=128.0, scored=48.0)
    whole = formulas.attribute_whole(SHAPE, run, FULL)
    assert whole.memory["sums"] == 4000
    assert whole.disk == {"gradients": 8000.0}
    assert whole.flops == 3 * (128 * 1500 + 48 * 400)
    assert whole.decoded == 6 * 1000 * 2
    stream = formulas.attribute_stream(SHAPE, run, FULL, kept=2)
    assert stream.memory["weights"] == 4 * (200 + 50 + 500)
    assert stream.disk["gradients"] == 4000.0
    assert stream.flops == 4 * (128 * 1500 + 48 * 400)
    assert stream.read == 2 * 2 * 1000


def test_an_evaluation_by_hand():
    asked = Asked(tokens=500, scored=200, texts=10, context=30, new=16, budget=64)
    found = formulas.evaluate(SHAPE, asked, FULL)
    assert found.memory["cache"] == 4 * 30 * 10 * (2 * 30 + 16)
    assert found.memory["logits"] == 3 * 4 * 64 * 20
    assert found.memory["loading"] == 2000
    assert found.flops == (500 + 160) * 1500 + (200 + 160) * 400
    assert found.read == 0
    streamed = formulas.evaluate(SHAPE, asked, FULL, streamed=True)
    assert streamed.memory["cache"] == 0
    assert streamed.disk["cache"] == found.memory["cache"]
    assert streamed.read == 17 * 2000
    silent = formulas.evaluate(SHAPE, Asked(500, 200, 0, 0, 16, 64), FULL)
    assert (silent.decoded, silent.memory["cache"]) == (0, 0)


def test_seconds_are_those_of_the_slower_of_processor_and_disk():
    need = formulas.Need({}, flops=100, stepped=10, hashed=6, decoded=4, read=50, written=20)
    rates = {"flops": 50, "flops_half": 500, "stepped": 10, "hashed": 3, "decoded": 4}
    assert formulas.seconds(need, {**rates, "read": 10, "written": 20}) == 6.0  # the disk
    assert formulas.seconds(need, {**rates, "read": 100, "written": 100}) == 6.0  # 2 + 1 + 2 + 1
    half = formulas.Need({}, flops=1000, half=True)
    assert formulas.seconds(half, {**rates, "read": 1, "written": 1, "start": 3.0}) == 5.0


@pytest.mark.parametrize(("most", "found"), [(50, None), (100, 0.1), (145, 0.55), (999, 1.0)])
def test_the_largest_ratio_lies_where_the_need_meets_what_there_is(most, found):
    got = formulas.largest_ratio(most, 100, 190, 0.1)
    assert got == (None if found is None else pytest.approx(found))


def test_a_card_holds_neither_libraries_nor_what_is_only_mapped():
    need = formulas.Need({"libraries": 7.0, "loading": 5.0, "weights": 3.0})
    assert (need.peak, need.on_card) == (15.0, 3.0)
