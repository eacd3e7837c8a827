"""LoRA: only the adapter moves, a mask holds within it, and what is kept is what was trained."""

import importlib.util
import json
import logging
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import Killed, encoder, kill_at, same, unlearn, weights
from wagle.mask.mask import Mask
from wagle.model.adapters import load_merged
from wagle.model.weights import fingerprint, own_tensors
from wagle.patch.verification import verify
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.system.errors import WagleError
from wagle.unlearning import lora
from wagle.unlearning.lora import (
    add_lora,
    check_adapter_mask,
    find_targets,
    load_quantized,
    merge_lora,
    save_adapter,
)
from wagle.unlearning.original import choose_original

# peft 0.21 asks transformers 5.23 by an old name, also where these tests call peft themselves
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
IDS = torch.arange(20).unsqueeze(0) * 7 % 400
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
ALL = sorted([*ATTENTION, "down_proj", "gate_proj", "up_proj"])


def adapted(family="llama-tied", **settings):
    return add_lora(make_model(family), **{"rank": 4, **settings})


def warmed(family="llama-tied", **settings):
    """An adapter that was trained before: B is not zero any more."""
    model = adapted(family, **settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def split(model):
    """The weights of a model in those of its base and those of its adapter."""
    found = weights(model)
    adapter = {name: value for name, value in found.items() if ".lora_" in name}
    return {name: value for name, value in found.items() if name not in adapter}, adapter


def adapter_mask(model, **settings):
    return Mask.from_scores(wagle.gradients(model, encoder(), RECORDS, OTHERS), **settings)


# ----- the adapter -----


def test_the_adapter_is_a_function_of_seed_and_name_alone():
    model, again = make_model("llama-tied"), make_model("llama-tied")
    torch.manual_seed(1)
    _, one = split(add_lora(model, rank=4, seed=3))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    _, other = split(add_lora(again, rank=4, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], other[name]) for name in one)
    _, few = split(adapted(seed=3, targets=["v_proj"]))
    assert few.keys() < one.keys()
    assert all(torch.equal(one[name], few[name]) for name in few)
    _, third = split(adapted(seed=4))
    assert not any(torch.equal(one[name], third[name]) for name in one if ".lora_A." in name)


def test_a_is_uniform_within_one_over_the_root_of_its_inputs_and_b_is_zero():
    _, adapter = split(adapted(rank=64))
    for name, value in adapter.items():
        if ".lora_B." in name:
            assert not value.any()
            continue
        bound = 1 / math.sqrt(value.shape[1])
        assert value.abs().max() <= bound
        # of 64 * 32 draws at least: the standard error of the mean square is 2 % of it
        assert float(value.square().mean()) == pytest.approx(bound**2 / 3, rel=0.1)


@pytest.mark.parametrize("family", ["llama-tied", "llama-untied", "gpt2", "opt", "phi"])
def test_a_fresh_adapter_changes_no_logit_and_only_it_requires_gradients(family):
    model = make_model(family)
    with torch.no_grad():
        before = model(IDS).logits
        adapter = add_lora(model)
        assert torch.equal(adapter(IDS).logits, before)
    names = {n for n, p in adapter.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in adapter.named_parameters() if ".lora_" in n}
    head = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
    assert not any(f".{head}.lora" in n for n in names)


def test_all_linear_means_every_linear_layer_but_the_head():
    assert find_targets(make_model("llama-untied"), "all-linear") == ALL
    assert find_targets(make_model("gpt2"), "all-linear") == ["c_attn", "c_fc", "c_proj"]
    assert find_targets(make_model("llama-tied"), "q_proj") == ["q_proj"]


def test_the_adapter_of_a_bfloat16_model_is_float32():
    model = add_lora(make_model("llama-tied").to(torch.bfloat16))
    base, adapter = split(model)
    assert {v.dtype for v in adapter.values()} == {torch.float32}
    assert {v.dtype for v in base.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_porj"], "unknown LoRA target 'q_porj'; did you mean 'q_proj'? (known: all-linear, "),
        (["lm_head"], "unknown LoRA target 'lm_head' (known: all-linear, down_proj, "),
        ([], "targets is empty; name layers, or write all-linear"),
        (["all-linear", "q_proj"], "targets names all-linear in a list; give it alone"),
    ],
)
def test_a_target_that_is_not_there_is_one_line_with_those_that_are(targets, message):
    with pytest.raises(WagleError) as caught:
        add_lora(make_model("llama-untied"), targets=targets)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_adapted_is_refused(monkeypatch, tmp_path):
    with pytest.raises(WagleError, match="already has an adapter; merge it first"):
        add_lora(adapted())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WagleError) as caught:
        add_lora(make_model("llama-tied"))
    assert str(caught.value) == "LoRA needs peft: pip install 'wagle[lora]'"
    with pytest.raises(WagleError) as caught:
        load_quantized(tmp_path)
    assert str(caught.value) == "QLoRA needs bitsandbytes: pip install 'wagle[qlora]'"


# ----- unlearning -----


def test_unlearning_an_adapter_leaves_every_base_weight_bit_identical():
    model = adapted()
    base, adapter = split(model)
    result = unlearn(model, objective="npo", max_steps=3, weight_decay=0.1)
    after = split(model)
    assert all(torch.equal(base[name], after[0][name]) for name in base)
    moved = [name for name in adapter if not torch.equal(adapter[name], after[1][name])]
    assert moved == list(adapter)
    assert result.selected == sum(value.numel() for value in adapter.values())


def test_the_full_reference_of_an_adapter_is_the_frozen_copy_that_it_spares():
    assert choose_original(adapted(), "auto", 1).mode == "adapter"
    found = {}
    for mode in ("auto", "copy"):
        model = adapted()
        history = unlearn(model, objective="ga_kl", full_reference=mode, max_steps=3).history
        found[mode] = split(model)[1], [step["retain_loss"] for step in history]
    assert found["auto"][1] == found["copy"][1]
    assert found["auto"][1][-1] > 0
    assert all(
        torch.equal(found["auto"][0][name], found["copy"][0][name]) for name in found["copy"][0]
    )


def test_a_killed_run_goes_on_with_the_adapter_of_an_undisturbed_one(tmp_path):
    calm = adapted()
    unlearn(calm, max_steps=4)
    settings = {"max_steps": 4, "checkpoint_minutes": 0, "checkpoint_folder": tmp_path}
    with pytest.raises(Killed):
        unlearn(adapted(), **settings, on_step=kill_at(3))
    again = adapted()
    unlearn(again, **settings)
    assert same(again, weights(calm))


def test_the_adapters_dropout_is_off_unless_it_is_asked_for():
    found = {}
    for rate, dropout in ((0.0, False), (0.5, False), (0.5, True)):
        model = adapted(dropout=rate)
        unlearn(model, dropout=dropout)
        found[rate, dropout] = split(model)[1]
    plain, off, on = found.values()
    assert all(torch.equal(plain[name], off[name]) for name in plain)
    assert not all(torch.equal(plain[name], on[name]) for name in plain)


# ----- masks on the adapter -----


@pytest.mark.parametrize("score", ["wagle", "random", "magnitude"])
def test_what_a_mask_on_an_adapter_leaves_out_stays_bit_identical(score):
    model = warmed()
    mask = adapter_mask(model, score=score, ratio=0.3)
    base, adapter = split(model)
    assert list(mask) == list(adapter)
    assert mask.candidates == sum(value.numel() for value in adapter.values())
    result = unlearn(model, mask=mask, optimizer="AdamW", weight_decay=0.1)
    after = split(model)
    assert all(torch.equal(base[name], after[0][name]) for name in base)
    for name, old in adapter.items():
        assert torch.equal(after[1][name][~mask[name]], old[~mask[name]]), name
    changed = sum(int((after[1][name] != adapter[name]).sum()) for name in adapter)
    assert result.selected == mask.count
    assert result.changed == changed > 0


def test_the_gradient_of_an_adapter_is_that_of_plain_autograd():
    model = warmed()
    store = wagle.gradients(model, encoder(), RECORDS, OTHERS)
    total = {}
    for token in encoder().encode(wagle.read_records(RECORDS, name="forget")):
        ids = torch.tensor([token.ids])
        log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        places = [i for i, scored in enumerate(token.scored) if scored]
        loss = -torch.stack([log_probs[i - 1, token.ids[i]] for i in places]).mean()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(trained, found, strict=True):
            total[name] = total.get(name, 0) + gradient / len(RECORDS)
    for name, expected in total.items():
        torch.testing.assert_close(store.get("grad_forget", name), expected, rtol=1e-4, atol=1e-6)


def test_on_a_fresh_adapter_gradient_scores_see_b_only_and_say_so(caplog):
    model = adapted()
    store = wagle.gradients(model, encoder(), RECORDS, OTHERS)
    for name in store.shapes:
        assert bool(store.get("grad_forget", name).any()) == (".lora_B." in name)
    mask = Mask.from_scores(store, score="grad_forget", ratio=0.2)
    assert all(".lora_B." in n for n, (chosen, _) in mask.density("parameter").items() if chosen)
    with caplog.at_level(logging.WARNING, logger="wagle"):
        check_adapter_mask(mask, by_gradient=True)
    assert "lora_A has no gradient until lora_B has moved" in caplog.text
    caplog.clear()
    within = Mask.from_scores(store, score="grad_forget", ratio=0.2, exclude=["*.lora_A.*"])
    check_adapter_mask(within, by_gradient=True)
    check_adapter_mask(Mask.from_scores(store, score="random", ratio=0.2), by_gradient=False)
    assert not caplog.text


def test_a_mask_that_selects_nothing_of_b_is_refused():
    mask = adapter_mask(adapted(), score="magnitude", ratio=0.2)
    with pytest.raises(WagleError, match="selects nothing in lora_B, which starts at zero"):
        check_adapter_mask(mask, by_gradient=False)


# ----- merge or keep -----


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_merging_adds_alpha_over_rank_times_b_a_and_leaves_an_ordinary_model(family, tmp_path):
    plain = make_model(family)
    settings, before = plain.config.to_dict(), dict(own_tensors(make_model(family)))
    model = warmed(family, rank=4, alpha=6)
    adapter = split(model)[1]
    with torch.no_grad():
        said = model(IDS).logits
    merged = merge_lora(model)
    assert type(merged) is type(plain)
    assert merged.config.to_dict() == settings
    assert all(p.requires_grad for p in merged.parameters())
    after = dict(own_tensors(merged))
    assert after.keys() == before.keys()
    for name, old in before.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        change = torch.zeros_like(old)
        if f"{stem}.lora_A.default.weight" in adapter:
            parts = (adapter[f"{stem}.lora_{x}.default.weight"] for x in "BA")
            change = 6 / 4 * torch.matmul(*parts)
            change = change.T if family == "gpt2" else change
        torch.testing.assert_close(after[name], old + change, rtol=0, atol=1e-6)
    merged.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, said, rtol=0, atol=1e-5)


def test_an_adapter_that_is_not_finite_is_not_merged():
    model = warmed()
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight"
    before = split(model)[0]
    with torch.no_grad():
        model.get_parameter(name)[0, 0] = torch.nan
    with pytest.raises(WagleError, match=r"layers\.1\.mlp\.up_proj\.lora_A.* is not finite; lower"):
        merge_lora(model)
    assert all(torch.equal(before[n], v) for n, v in split(model)[0].items())


def test_a_kept_adapter_loads_in_peft_and_merges_to_the_same_model(tmp_path, model_folder):
    model = add_lora(AutoModelForCausalLM.from_pretrained(model_folder).eval(), rank=4)
    unlearn(model)
    save_adapter(model, tmp_path / "adapter", model_folder)
    files = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(model_folder)
    assert config["target_modules"] == ALL
    base = AutoModelForCausalLM.from_pretrained(model_folder, local_files_only=True).eval()
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    merged = fingerprint(load_merged(model_folder, tmp_path / "adapter"))
    save_adapter(model, tmp_path / "again", model_folder)
    for name in files:
        first, second = (tmp_path / folder / name for folder in ("adapter", "again"))
        assert first.read_bytes() == second.read_bytes()
    assert fingerprint(merge_lora(model)) == merged


# ----- in four bits -----


def test_an_adapter_over_four_bits_trains_and_merges_into_the_base_as_it_was(
    tmp_path, model_folder
):
    pytest.importorskip("bitsandbytes")
    model = add_lora(load_quantized(model_folder), rank=4)
    assert (
        model.get_parameter("base_model.model.model.layers.0.mlp.up_proj.base_layer.weight").dtype
        == torch.uint8
    )
    before = {n: t.clone() for n, t in own_tensors(model) if ".lora_" not in n}
    assert unlearn(model, objective="npo").changed > 0
    assert all(torch.equal(before[n], t) for n, t in own_tensors(model) if ".lora_" not in n)
    with pytest.raises(
        WagleError, match="an adapter cannot be merged exactly into a quantised base"
    ):
        merge_lora(model)
    save_adapter(model, tmp_path / "adapter", model_folder)
    merged = load_merged(model_folder, tmp_path / "adapter")
    old = load_file(model_folder / "model.safetensors")
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, value in own_tensors(merged):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = old[name]
        if f"{stem}.lora_A.weight" in adapter:
            parts = (adapter[f"{stem}.lora_{x}.weight"] for x in "BA")
            expected = expected + 16 / 4 * torch.matmul(*parts)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_two_loads_in_four_bits_are_one_model_and_masks_hold_there(model_folder):
    pytest.importorskip("bitsandbytes")
    one, other = (add_lora(load_quantized(model_folder)) for _ in range(2))
    mask = adapter_mask(one, score="random", ratio=0.3)
    _, before = split(other)
    unlearn(other, mask=mask)  # made for the first: refused if the second had another fingerprint
    for name, value in split(other)[1].items():
        assert torch.equal(value[~mask[name]], before[name][~mask[name]])


# ----- in a run -----


@pytest.fixture
def recipe_file(tmp_path, model_folder):
    recipe = {
        "name": "tiny",
        "model": str(model_folder),
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.json"),
        "unlearning": {
            "lora": {"rank": 2},
            "max_steps": 2,
            "learning_rate": 1e-2,
            "stop_when": [],
            "when_unknown": "go",
        },
        "evaluation": {"generate": False},
    }
    (tmp_path / "forget.json").write_text(json.dumps(RECORDS))
    (tmp_path / "retain.json").write_text(json.dumps(OTHERS))
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_run_with_lora_has_no_mask_and_merges_the_adapter(recipe_file, tmp_path, model_folder):
    run = execute(load_recipe(recipe_file), tmp_path / "out")
    stages = run.state["stages"]
    for name in ("gradients", "mask"):
        assert stages[name]["skipped"] == "LoRA trains its whole adapter: there is no mask"
    assert not (tmp_path / "out" / "mask.safetensors").exists()
    assert not (tmp_path / "out" / "adapter").exists()
    assert not (tmp_path / "out" / "private" / "gradients").exists()
    assert stages["unlearn"]["lora"]["rank"] == 2
    # 2 blocks; per layer 2 * (in + out) weights
    sizes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert stages["unlearn"]["selected"] == 2 * sum(2 * (i + o) for i, o in sizes) == 1856
    checked = verify(
        model_folder, tmp_path / "out" / "model", patch=tmp_path / "out" / "patch.safetensors"
    )
    assert checked.ok
    assert {name.split(".")[-2] for name in checked.tensors} == set(ALL)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "LoRA of rank 2, alpha 16, on all-linear, then merged" in page
    assert '<span class="strong">1,856</span> weights of the adapter' in page


def test_a_run_keeps_the_adapter_and_masks_it_where_asked(recipe_file, tmp_path, model_folder):
    more = ["unlearning.lora.keep=adapter", "unlearning.lora.masked=true"]
    more += ["attribution.score=random", "attribution.ratio=0.25"]
    run = execute(load_recipe(recipe_file, more), tmp_path / "out")
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    assert all(".lora_" in name for name in mask)
    assert run.state["stages"]["unlearn"]["selected"] == mask.count == mask.candidates // 4
    kept = load_merged(model_folder, tmp_path / "out" / "adapter")
    assert fingerprint(kept) == fingerprint(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "report.html").stat().st_size > 0


def test_a_run_in_four_bits_ends_with_an_ordinary_model(recipe_file, tmp_path, model_folder):
    pytest.importorskip("bitsandbytes")
    more = ["unlearning.lora.quantize=nf4", "unlearning.lora.targets=[q_proj, v_proj]"]
    run = execute(load_recipe(recipe_file, more), tmp_path / "out", until="patch")
    checked = verify(model_folder, run.folder / "model")
    assert {name.split(".")[-2] for name in checked.tensors} == {"q_proj", "v_proj"}


BAD = [
    ("unlearning.lora.targets=[q_porj]", "unknown LoRA target 'q_porj'; did you mean 'q_proj'"),
    ("unlearning.lora.dropout=0.1", "unlearning.lora.dropout is given, but unlearning.dropout is"),
    ("unlearning.lora.rank=0", "unlearning.lora.rank"),
    ("unlearning.wrapper=task_vector", "unlearning.wrapper is task_vector, which negates weights"),
    ("attribution.mask=nowhere", "attribution.mask is given, but LoRA trains its whole adapter"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_a_bad_setting_is_one_line_before_anything_is_computed(
    recipe_file, tmp_path, override, message
):
    with pytest.raises(WagleError, match=message.replace("[", r"\[")) as caught:
        execute(load_recipe(recipe_file, [override]), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "evaluation").exists()


def test_a_run_without_peft_stops_before_its_first_stage(recipe_file, tmp_path, monkeypatch):
    def missing(package, what, extra):
        raise WagleError(f"{what} needs {package}: pip install 'wagle[{extra}]'")

    monkeypatch.setattr(lora, "_require", missing)
    with pytest.raises(WagleError, match=r"LoRA needs peft: pip install 'wagle\[lora\]'"):
        execute(load_recipe(recipe_file), tmp_path / "out")
    assert not (tmp_path / "out" / "evaluation").exists()
