import copy
import math
import stat

import pytest
import torch

from tests.conftest import make_model
from tests.unlearning.conftest import flat, sgd, slow_nll, tokens, unlearn
from wagle.data.batches import collate, token_batches
from wagle.model.structure import find_blocks, without_dropout
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.original import (
    Original,
    choose_original,
    original_hidden,
    reference_scores,
    top_distributions,
)
from wagle.unlearning.reading.activations import check_layer, hidden


def _count(model):
    """How often a module is called from here on."""
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


# ---------------------------------------------------------------------------------------------
# Kept references


EVERY = range(6)


def _scores(model, folder, records="forget", dtype="float32", wanted=EVERY):
    return reference_scores(model, "forget", tokens(records), wanted, dtype, folder)


def _top(model, folder, records="forget", dtype="float32", k=5, wanted=EVERY):
    return top_distributions(model, "forget", tokens(records), wanted, dtype, k, folder)


def _states(model, folder, records="forget", dtype="float32", layer=0, wanted=EVERY):
    return original_hidden(model, "forget", tokens(records), wanted, layer, dtype, folder)


def _tensors(found):
    return [found[i][name] for i in sorted(found) for name in sorted(found[i])]


def test_scores_are_those_of_every_record_alone(model):
    with torch.no_grad():
        wanted = slow_nll(model, tokens("forget"))
    found = _scores(model, None)
    means = torch.stack([found[i]["token_nll"].mean() for i in EVERY])
    torch.testing.assert_close(means, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ask", [_scores, _top, _states])
def test_a_reference_is_computed_once_and_read_again_from_its_private_folder(ask, tmp_path):
    first = make_model("llama-tied")
    made = ask(first, tmp_path)
    again = make_model("llama-tied")
    calls = _count(again)
    read = ask(again, tmp_path)
    assert not calls
    assert all(torch.equal(a, b) for a, b in zip(_tensors(made), _tensors(read), strict=True))
    paths = list(tmp_path.iterdir())
    assert len(paths) == 1
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    without = ask(first, None)
    assert all(torch.equal(a, b) for a, b in zip(_tensors(made), _tensors(without), strict=True))


@pytest.mark.parametrize(
    ("ask", "change", "differs"),
    [
        (_scores, {}, "model"),
        (_scores, {"records": "retain"}, "records"),
        (_scores, {"dtype": "bfloat16"}, "precision"),
        (_scores, {"records": "retain", "dtype": "bfloat16"}, "records and precision"),
        (_top, {"k": 6}, "k"),
        (_states, {"layer": 1}, "layer"),
    ],
)
def test_a_stale_reference_is_refused_by_what_differs(ask, change, differs, tmp_path):
    ask(make_model("llama-tied"), tmp_path)
    other = make_model("llama-tied", seed=0 if change else 1)
    with pytest.raises(WagleError, match=rf"is for another {differs}; delete it$"):
        ask(other, tmp_path, **change)


@pytest.mark.parametrize("ask", [_scores, _top, _states])
@pytest.mark.parametrize("change", ["dtype", "attention"])
def test_a_reference_of_the_same_weights_computed_otherwise_is_refused(ask, change, tmp_path):
    model = make_model("llama-tied").to(torch.bfloat16).float()  # the same numbers in both
    ask(model, tmp_path)
    other = copy.deepcopy(model)
    if change == "dtype":
        other.to(torch.bfloat16)
    else:
        assert other.config._attn_implementation == "sdpa"
        other.set_attn_implementation("eager")
    with pytest.raises(WagleError, match=f"is for another {change}; delete it$"):
        ask(other, tmp_path)


@pytest.mark.parametrize("ask", [_scores, _top, _states])
def test_a_kept_reference_gets_the_records_that_it_lacks_and_those_alone(ask, tmp_path):
    seen = []
    model = make_model("llama-tied")
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    whole = ask(model, None)
    del seen[:]
    assert list(ask(model, tmp_path, wanted=[1, 4])) == [1, 4]
    assert sum(seen) == 2
    found = ask(model, tmp_path, wanted=[0, 2, 4])
    assert (list(found), sum(seen)) == ([0, 2, 4], 4)
    again = ask(model, tmp_path, wanted=[0, 1, 2, 4])
    assert sum(seen) == 4
    for i, columns in again.items():
        assert columns.keys() == whole[i].keys()
        for name in columns.keys() - {"tokens"}:  # equal ones may change places
            torch.testing.assert_close(columns[name], whole[i][name], rtol=1e-4, atol=1e-5)


def test_states_that_float16_cannot_hold_are_kept_as_they_are():
    model = make_model("llama-tied")
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e8)
    states = _states(model, None, dtype="bfloat16")[0]["states"]
    assert (states.dtype, bool(states.isfinite().all())) == (torch.float32, True)
    assert (
        _states(make_model("llama-tied"), None, dtype="bfloat16")[0]["states"].dtype
        == torch.float16
    )


def test_a_second_run_does_not_ask_the_original_model_again(tmp_path):
    calls = []
    for _ in range(2):
        model = make_model("llama-tied")
        calls.append(_count(model))
        unlearn(model, objective="npo", reference_folder=tmp_path)
    assert len(calls[1]) == len(calls[0]) - 1  # six short records are one batch
    assert [p.name for p in tmp_path.iterdir()] == ["forget.safetensors"]


# ---------------------------------------------------------------------------------------------
# Whole distributions


@pytest.mark.parametrize("k", [1, 3, 399, 1000])
def test_the_largest_k_tokens_hold_the_true_one_and_the_rest_is_the_tail(model, k):
    kept = _top(model, None, k=k)
    for number, record in enumerate(tokens("forget")):
        found, start = kept[number], 0
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([record.ids])).logits[0].log_softmax(-1)
        for place in [i for i, scored in enumerate(record.scored) if scored]:
            row, true = log_probs[place - 1], record.ids[place]
            top, ids = found["log_probs"][start], found["tokens"][start].long()
            assert len(set(ids.tolist())) == len(ids) == min(k, 399)
            assert true in ids
            torch.testing.assert_close(top, row[ids], rtol=1e-4, atol=1e-5)
            others = set(range(400)) - set(ids.tolist())
            rest = row[sorted(others)].logsumexp(0)
            torch.testing.assert_close(found["tail"][start], rest, rtol=1e-4, atol=1e-4)
            best = set(row.topk(min(k, 399)).indices.tolist())
            assert len(best - set(ids.tolist())) <= 1  # the true token took the last one's place
            start += 1
        assert start == len(found["tail"])


@pytest.mark.parametrize("objective", ["undial", "ga_kl", "jensun", "kl"])
def test_with_all_tokens_topk_trains_as_a_copy_does(objective):
    after = []
    for mode in ("copy", "topk"):
        model = make_model("llama-tied")
        unlearn(model, objective=objective, full_reference=mode, full_reference_k=399, **sgd(0.1))
        after.append(flat(model))
    # Both are the same sums over 400 tokens in another order.
    torch.testing.assert_close(after[1], after[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["copy", "topk"])
def test_at_the_start_the_divergence_from_the_original_model_is_zero_with_zero_gradient(mode):
    def nothing(forget):
        return 0 * forget.nll_mean

    result = unlearn(
        make_model("gpt2"),
        objective=nothing,
        retain_term="kl",
        full_reference=mode,
        max_steps=1,
        batch_size=6,
        optimizer="AdamW",
    )
    first = result.history[0]
    assert first["retain_loss"] == pytest.approx(0.0, abs=1e-6)
    assert first["grad_norm"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21
def test_with_an_adapter_the_original_model_is_the_one_without_it():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.5)
    after = []
    for mode in ("auto", "copy"):
        torch.manual_seed(0)
        model = peft.get_peft_model(make_model("llama-tied"), config)
        assert choose_original(model, "auto", 1) == Original("adapter", 1)
        base = {n: p.detach().clone() for n, p in model.named_parameters() if "lora" not in n}
        unlearn(model, objective="ga_kl", full_reference=mode, max_steps=3)
        moved = dict(model.named_parameters())
        assert all(torch.equal(moved[n], old) for n, old in base.items())
        after.append(torch.cat([p.detach().flatten() for n, p in moved.items() if "lora" in n]))
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21
def test_a_trained_adapter_is_not_taken_off_for_the_original_model():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        make_model("llama-tied"), peft.LoraConfig(target_modules=["q_proj"])
    )
    assert choose_original(model, "adapter", 1) == Original("adapter", 1)
    unlearn(model, objective="grad_ascent")
    assert choose_original(model, "auto", 1) == Original("copy", 1)
    with pytest.raises(WagleError, match="the adapter is already trained, so the model without it"):
        unlearn(model, objective="ga_kl", full_reference="adapter")
    unlearn(model, objective="ga_kl", full_reference="topk")


# ---------------------------------------------------------------------------------------------
# Activations


def _batch(index=(0, 3, 4), side="right"):
    return collate([tokens("forget")[i] for i in index], list(index), side=side)


def _norm_after_the_blocks(model):
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
    return next(
        m for n, m in model.named_modules() if n.count(".") <= 2 and n.split(".")[-1] in names
    )


def _plain(model, batch, layer):
    """What the model itself says comes out of a block, at the real positions."""
    with torch.no_grad():
        states = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            output_hidden_states=True,
        ).hidden_states
    return states[layer + 1][batch["attention_mask"].bool()]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_comes_out_of_a_block_is_what_the_plain_model_says(any_model, side):
    batch = _batch(side=side)
    with torch.no_grad():
        first, last = (hidden(any_model, batch, layer) for layer in (0, 1))
        normed = _norm_after_the_blocks(any_model)(last.states)
    torch.testing.assert_close(first.states, _plain(any_model, batch, 0), rtol=1e-5, atol=1e-6)
    # The model gives its last hidden states after the norm that follows the blocks.
    torch.testing.assert_close(normed, _plain(any_model, batch, 1), rtol=1e-5, atol=1e-5)
    assert first.length.tolist() == [len(tokens("forget")[i].ids) for i in (0, 3, 4)]


@pytest.mark.parametrize("layer", [0, 1])
def test_padding_on_either_side_and_company_do_not_change_the_states(any_model, layer):
    with torch.no_grad():
        right, left = (hidden(any_model, _batch(side=side), layer) for side in ("right", "left"))
        alone = torch.cat([hidden(any_model, _batch((i,)), layer).states for i in (0, 3, 4)])
    torch.testing.assert_close(right.states, left.states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(right.states, alone, rtol=1e-4, atol=1e-5)


def test_blocks_after_the_one_that_is_asked_for_do_not_run(any_model):
    _, blocks = find_blocks(any_model)
    ran = []
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    any_model.get_output_embeddings().register_forward_hook(lambda *_: ran.append("head"))
    with torch.no_grad():
        hidden(any_model, _batch(), 0)
        assert ran == [0]
        hidden(any_model, _batch(), 1)
    assert ran[:3] == [0, 0, 1]
    hooks = [len(b._forward_pre_hooks) + len(b._forward_hooks) for b in blocks]
    assert hooks == [1, 1]  # the test's own


@pytest.mark.parametrize("layer", [0, 1])
def test_activation_checkpointing_changes_neither_the_states_nor_their_gradients(any_model, layer):
    found = []
    for checkpointed in (False, True):
        any_model.train()
        if checkpointed:
            any_model.activation_checkpointing_enable()
        with without_dropout(any_model):
            states = hidden(any_model, _batch(), layer).states
            states.square().sum().backward()
        grads = [p.grad for p in any_model.parameters() if p.grad is not None]
        found.append((states.detach(), torch.cat([g.flatten() for g in grads])))
        any_model.zero_grad(set_to_none=True)
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", [-1, 2, 1.0, "1", None])
def test_a_block_that_is_not_there_is_refused(model, layer):
    with pytest.raises(WagleError, match="the model has blocks 0 to 1, so choose one of these"):
        check_layer(model, layer)


def test_kept_states_are_those_of_the_records_in_order(model):
    found = _states(model, None, layer=1)
    assert list(found) == list(EVERY)
    for number, record in enumerate(tokens("forget")):
        with torch.no_grad():
            alone = hidden(model, token_batches([record], 1)[0], 1).states
        torch.testing.assert_close(found[number]["states"], alone, rtol=1e-4, atol=1e-5)


def test_the_first_loss_of_npo_is_twice_ln_2_over_beta_for_every_record():
    result = unlearn(
        make_model("gpt2"), objective="npo", objective_settings={"beta": 0.25}, max_steps=1
    )
    assert result.history[0]["forget_loss"] == pytest.approx(8 * math.log(2), rel=1e-5)


def test_a_users_function_may_ask_for_references_too(model):
    def gap(forget, forget_ref, retain):
        return Terms((forget_ref.nll_sum - forget.nll_sum) * 2, retain.nll_mean)

    first = unlearn(model, objective=gap, max_steps=1).history[0]
    assert first["forget_loss"] == pytest.approx(0.0, abs=1e-4)
