"""Quantisation: the rounded layers, llama.cpp, and what the codes say of an unlearning."""

import copy
import logging
import os
import sys

import pytest
import torch
from torch import nn

from tests.conftest import make_model
from wagle.attacks.kinds.quantization.codes import changed_codes
from wagle.mask.mask import Mask
from wagle.model.loading import empty_model, load_model
from wagle.model.quantization.layers import METHODS
from wagle.model.quantization.llama_cpp import load_gguf
from wagle.model.quantization.quantizing import check_way, quantize
from wagle.system.errors import WagleError

SMALL = {"methods": ["int8", "int4"], "group_size": 16}  # settings that keep the attack short
STATES, START = ["as it is", "int8", "int4"], "as it is"

T39 = torch.tensor([[0.1, -0.35, 0.7, 0.02]])
IDS = torch.arange(5, 25).view(2, 10)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def linear(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}


def mask_of(chosen):
    levels = {name: picked.to(torch.uint8) for name, picked in chosen.items()}
    count = sum(int(level.sum()) for level in levels.values())
    return Mask.from_levels(levels, ratios=[0.5], counts=[count], metadata={})


class Toy(nn.Module):
    """One linear layer, one vector that is none."""

    def __init__(self, rows):
        super().__init__()
        self.layer = nn.Linear(len(rows[0]), len(rows), bias=False)
        self.layer.weight = nn.Parameter(torch.tensor(rows))
        self.norm = nn.Parameter(torch.ones(3))


# ---------------------------------------------------------------------------------------------
# Layers


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("int4", [[0.0933, -0.3733, 0.6533, 0.0]]),
        ("int8", [[0.0988, -0.3514, 0.6973, 0.0220]]),
    ],
)
def test_t39_integers_round_to_steps_of_the_largest_weight_which_is_clipped(how, expected):
    layer = nn.Linear(4, 1, bias=False)
    layer.weight = nn.Parameter(T39.clone())
    got = METHODS[how](layer, 4)
    torch.testing.assert_close(
        got(torch.eye(4)).detach().T, torch.tensor(expected), atol=5e-5, rtol=0
    )


def test_nf4_and_fp4_have_the_values_of_their_published_tables():
    # the largest weight of a block is 1 in both; nf4 has 0.44070983 and fp4 0.5 next to 0.45
    row = torch.tensor([[1.0, 0.45, -1.0, 0.0] + [0.0] * 60])
    for how, second in (("nf4", 0.44070983), ("fp4", 0.5)):
        layer = nn.Linear(64, 1, bias=False)
        layer.weight = nn.Parameter(row.clone())
        got = METHODS[how](layer, 0)(torch.eye(64)).T[0, :4]
        torch.testing.assert_close(got, torch.tensor([1.0, second, -1.0, 0.0]), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------
# Models


@pytest.mark.parametrize("how", sorted(METHODS))
@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt"])
def test_a_quantised_copy_answers_nearly_alike_and_the_given_model_is_untouched(how, family):
    model = make_model(family)
    before = {n: p.detach().clone() for n, p in model.state_dict().items()}
    expected = logits(model)
    quantized = quantize(model, how, group_size=16)
    got = logits(quantized)
    assert type(quantized) is type(model)
    assert not torch.equal(got, expected)
    assert (got - expected).norm() < 0.5 * expected.norm()
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("how", sorted(METHODS))
def test_every_linear_layer_is_quantised_the_head_too_and_the_embeddings_stay(how):
    model = make_model("llama-tied")
    quantized = quantize(model, how, group_size=16)
    assert len(linear(quantized)) == 15  # 2 blocks of 7, and the head
    for layer in linear(quantized).values():
        assert type(layer.weight.data) is not torch.Tensor or layer.weight.dtype == torch.uint8
    own = quantized.get_input_embeddings().weight
    assert torch.equal(own, model.get_input_embeddings().weight)
    assert own.data_ptr() != model.get_input_embeddings().weight.data_ptr()
    quantized.tie_weights()  # as transformers may; the head must stay what it is
    assert quantized.get_output_embeddings().weight is not own
    assert model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("how", ["int4", "int8"])
def test_a_quantised_model_computes_with_its_rounded_weights(how):
    model = make_model("llama-untied")
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for layer in linear(rounded).values():
            parts = layer.weight.view(len(layer.weight), -1, 16) if how == "int4" else None
            rows = layer.weight if parts is None else parts
            top = 7 if how == "int4" else 127
            step = rows.abs().amax(-1, keepdim=True) / (top + 0.5)
            new = (rows * (1 / step)).round().clamp(-top - 1, top) * step
            layer.weight.copy_(new.view_as(layer.weight))
    torch.testing.assert_close(logits(quantize(model, how, group_size=16)), logits(rounded))


@pytest.mark.parametrize("how", sorted(METHODS))
def test_a_bfloat16_model_stays_one(how):
    model = make_model("llama-tied").bfloat16()
    got = logits(quantize(model, how, group_size=16))
    assert got.dtype == torch.bfloat16
    assert torch.isfinite(got).all()


def test_a_group_that_does_not_divide_the_inputs_is_refused_with_the_layer(model):
    with pytest.raises(WagleError, match=r"layers\.0\.mlp\.down_proj has 48 inputs.*groups of 32"):
        quantize(model, "int4")
    with pytest.raises(WagleError, match="group_size is 0"):
        quantize(model, "int4", group_size=0)


def test_what_quantize_would_refuse_is_refused_of_the_shape_alone(model_folder):
    shape = empty_model(model_folder)
    check_way("int4", 16, shape)
    check_way("int8", 7, shape)  # which has no groups
    with pytest.raises(WagleError, match=r"q_proj has 32 inputs, which groups of 7 do not"):
        check_way("int4", 7, shape)
    with pytest.raises(WagleError, match=r"down_proj has 48 inputs, which groups of 32 do not"):
        check_way("int4", None, shape)
    with pytest.raises(WagleError, match="group_size is 0"):
        check_way("int4", 0)
    with pytest.raises(WagleError, match=r"unknown quantisation 'ggu'; did you mean 'gguf'"):
        check_way("ggu")


def test_unknown_names_and_models_that_are_quantised_or_broken_are_refused(model):
    with pytest.raises(WagleError, match="unknown quantisation 'int3'; did you mean 'int"):
        quantize(model, "int3")
    for how in ("int8", "nf4"):
        with pytest.raises(WagleError, match="q_proj is already quantised"):
            quantize(quantize(model, how), "int8")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(WagleError, match="weights of lm_head are not finite"):
        quantize(model, "int8")


def test_a_missing_package_is_named_with_its_extra(model, monkeypatch):
    for package, module, how in (
        ("torchao", "torchao.quantization", "int8"),
        ("bitsandbytes", "bitsandbytes.nn", "nf4"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        for call in (lambda how=how: quantize(model, how), lambda how=how: check_way(how)):
            with pytest.raises(WagleError, match=rf"needs {package}: pip install 'wagle\[att"):
                call()


def test_experts_that_are_not_quantised_are_told(caplog):
    with caplog.at_level(logging.WARNING, "wagle"):
        quantize(make_model("mixtral"), "int8")
    assert "are in no linear layer" in caplog.text


# ---------------------------------------------------------------------------------------------
# llama.cpp


def test_gguf_without_llama_cpp_is_a_one_line_error(model_folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    for call in (lambda: load_gguf(model_folder), lambda: check_way("gguf")):
        with pytest.raises(WagleError, match=r"needs convert_hf_to_gguf\.py and llama-quantize"):
            call()


def fake_tool(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_gguf_tools_run_one_after_the_other_and_a_failure_is_told(
    model_folder, tmp_path, monkeypatch
):
    tools = tmp_path / "tools"
    fake_tool(tools, "convert_hf_to_gguf.py", f'echo "$2 $3" > {tmp_path}/seen; echo x > "$5"')
    fake_tool(tools, "llama-quantize", 'test -f "$1" && echo "bad type $3" >&2; exit 3')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(WagleError, match="llama-quantize failed with 3: bad type Q4_0"):
        load_gguf(model_folder, "Q4_0")
    assert (tmp_path / "seen").read_text() == "--outtype f32\n"


def test_gguf_is_loaded_from_what_the_tools_made(model_folder, tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    model = make_model("llama-tied")
    tiny_gguf(gguf, model, tmp_path / "tiny.gguf")
    tools = tmp_path / "tools"
    fake_tool(tools, "convert_hf_to_gguf.py", 'echo x > "$5"')
    fake_tool(tools, "llama-quantize", f'cp {tmp_path}/tiny.gguf "$2"')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    loaded = load_gguf(model_folder)
    assert loaded.dtype == torch.float32
    expected = model.get_input_embeddings().weight
    torch.testing.assert_close(loaded.get_input_embeddings().weight, expected)


def test_a_live_model_goes_through_gguf_in_a_private_folder_that_is_gone_afterwards(
    model_folder, tmp_path, monkeypatch
):
    gguf = pytest.importorskip("gguf")
    tiny_gguf(gguf, make_model("llama-tied"), tmp_path / "tiny.gguf")
    tools, seen = tmp_path / "tools", tmp_path / "seen"
    fake_tool(
        tools,
        "convert_hf_to_gguf.py",
        f'cp -r "$1" {seen}; (dirname "$1"; stat -c %a "$1/..") > {tmp_path}/place; echo x > "$5"',
    )
    fake_tool(tools, "llama-quantize", f'cp {tmp_path}/tiny.gguf "$2"')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    check_way("gguf")
    model = load_model(model_folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)  # the live model, not its folder, is what is converted
    before = {n: p.detach().clone() for n, p in model.state_dict().items()}
    made = quantize(model, "gguf")
    place, mode = (tmp_path / "place").read_text().split()
    assert mode == "700"
    assert not os.path.exists(place)
    assert (seen / "tokenizer.json").read_bytes() == (model_folder / "tokenizer.json").read_bytes()
    assert torch.equal(load_model(seen).lm_head.weight, model.lm_head.weight)
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert made.generation_config is model.generation_config
    assert not any(p.requires_grad for p in made.parameters())
    assert torch.isfinite(logits(made)).all()


def test_gguf_of_a_model_without_a_folder_or_of_a_file_that_is_none_is_a_one_line_error(
    model_folder, tmp_path, monkeypatch
):
    pytest.importorskip("gguf")
    tools = tmp_path / "tools"
    for name, at in (("convert_hf_to_gguf.py", 5), ("llama-quantize", 2)):
        fake_tool(tools, name, f'echo x > "${at}"')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(WagleError, match="gguf needs a model that was loaded from a local folder"):
        quantize(make_model("llama-tied"), "gguf")
    with pytest.raises(WagleError, match="transformers cannot read the gguf that") as caught:
        quantize(load_model(model_folder), "gguf")
    assert "\n" not in str(caught.value)


def tiny_gguf(gguf, model, path):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.named_parameters():
        place = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(place, weight.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---------------------------------------------------------------------------------------------
# Codes


def test_an_update_below_half_a_step_keeps_its_code_and_one_above_does_not():
    # a step of the row is 0.75 / 7.5 = 0.1: codes 1, -3, 7, 0
    base = Toy([[0.1, -0.3, 0.75, 0.0]])
    after = Toy([[0.1, -0.33, 0.75, 0.06]])  # the codes 1, -3, 7, 1
    assert changed_codes(base, after, "int4", group_size=4) == {
        "weights": 2,
        "changed": 2,
        "code_changed": 0.5,
        "below_half_step": 0.5,
        "not_quantized": 0,
    }
    # 127.5 steps of 0.75 / 127.5 = 0.00588: both moved by more than five steps
    found = changed_codes(base, after, "int8")
    assert (found["code_changed"], found["below_half_step"]) == (1.0, 0.0)


def test_a_mask_decides_which_weights_are_looked_at():
    base, after = Toy([[0.1, -0.3, 0.75, 0.0]]), Toy([[0.1, -0.33, 0.75, 0.06]])
    with torch.no_grad():
        after.norm[0] = 2.0
    picked = torch.tensor([[True, True, False, False]])
    mask = mask_of({"layer.weight": picked, "norm": torch.tensor([True, True, False])})
    found = changed_codes(base, after, "int4", mask, group_size=4)
    assert found == {
        "weights": 2,
        "changed": 1,
        "code_changed": 0.0,
        "below_half_step": 1.0,
        "not_quantized": 2,
    }
    assert changed_codes(base, after, "int4", group_size=4)["not_quantized"] == 1


def test_a_step_is_that_of_its_own_group():
    # groups of two: steps 0.1 and 0.001; the same update of 0.02 is small in one, large in other
    base = Toy([[0.75, 0.0, 0.0075, 0.0]])
    after = Toy([[0.75, 0.02, 0.0075, 0.002]])
    found = changed_codes(base, after, "int4", group_size=2)
    assert (found["weights"], found["code_changed"], found["below_half_step"]) == (2, 0.5, 0.5)


def test_equal_models_have_no_shares(model):
    found = changed_codes(model, model, "int8")
    assert found["weights"] == found["changed"] == 0
    assert found["code_changed"] is None
    assert found["below_half_step"] is None


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "mixtral"])
@pytest.mark.parametrize("how", ["int4", "int8"])
def test_folders_give_what_live_models_give_and_a_slow_count_of_their_codes(family, how, tmp_path):
    base, after = make_model(family), make_model(family)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.002 * torch.randn_like(parameter) * (torch.rand_like(parameter) < 0.3)
    found = changed_codes(base, after, how, group_size=16)
    for name, each in (("base", base), ("after", after)):
        each.save_pretrained(tmp_path / name)
    paths = (tmp_path / "base", tmp_path / "after")
    assert changed_codes(*paths, how, group_size=16) == found
    assert changed_codes(base, paths[1], how, group_size=16) == found

    weights = codes = 0
    old, new = (linear(quantize(each, how, group_size=16)) for each in (base, after))
    modules = (dict(base.named_modules()), dict(after.named_modules()))
    for name in old:
        moved = modules[0][name].weight != modules[1][name].weight
        moved = moved.T if family == "gpt2" and name != "lm_head" else moved
        weights += int(moved.sum())
        codes += int((moved & (old[name].weight.qdata != new[name].weight.qdata)).sum())
    assert found["weights"] == weights
    assert found["code_changed"] == codes / weights
    assert 0 < found["below_half_step"] <= 1
    pairs = zip(base.parameters(), after.parameters(), strict=True)
    everything = sum(int((one != other).sum()) for one, other in pairs)
    assert found["weights"] + found["not_quantized"] == everything


def test_rows_at_a_time_give_what_all_at_once_gives(monkeypatch):
    base, after = make_model("llama-untied"), make_model("llama-untied", seed=1)
    whole = changed_codes(base, after, "int4", group_size=16)
    monkeypatch.setattr("wagle.attacks.kinds.quantization.codes._CHUNK", 100)
    assert changed_codes(base, after, "int4", group_size=16) == whole


def test_codes_of_models_or_masks_that_do_not_fit_are_refused(model):
    with pytest.raises(WagleError, match=r"base and after do not fit: layer\.weight is \(1, 2\)"):
        changed_codes(Toy([[1.0, 2.0]]), Toy([[1.0, 2.0, 3.0]]), "int8")
    toy = Toy([[1.0, 2.0]])
    for shapes in ({"layer.weight": (2, 2)}, {"other": (1,)}):
        mask = mask_of(
            {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        )
        with pytest.raises(WagleError, match=f"mask and after do not fit: {next(iter(shapes))}"):
            changed_codes(toy, toy, "int8", mask)
    with pytest.raises(WagleError, match="unknown quantisation with codes 'nf4'"):
        changed_codes(model, model, "nf4")
    with pytest.raises(WagleError, match=r"weights of layer\.weight are not finite"):
        changed_codes(toy, Toy([[1.0, float("nan")]]), "int8")
