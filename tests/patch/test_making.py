import json
import os
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import make_model
from tests.patch.models import (
    all_tensors,
    assert_same_models,
    bits,
    changed_at,
    folder,
    rewrite,
    weights,
)
from wagle.model.saving import save_model
from wagle.model.weights import fingerprint
from wagle.patch import folders as patch_folders
from wagle.patch import making as module
from wagle.patch import positions as patch_positions
from wagle.patch.making import Patch, apply, extract, undo, verify
from wagle.system.errors import WagleError

QUIET_NAN, OTHER_NAN = 0x7FC00001, 0x7FC00002  # two NaNs that differ in their payload


@pytest.fixture
def trio(tmp_path):
    """Base, result with five changed weights, and their patch."""
    old = weights()
    base = folder(tmp_path / "base", old)
    new = changed_at(old, {"embed.weight": [0, 3, 799], "layers.0.up.weight": [7, 300]})
    result = folder(tmp_path / "result", new)
    extract(base, result, tmp_path / "p.safetensors")
    return base, result, tmp_path / "p.safetensors"


# Extract and apply


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 2])
def test_base_and_patch_give_the_bytes_of_the_result(tmp_path, dtype, shards):
    old = weights(dtype)
    where = {"embed.weight": [0, 700], "layers.0.up.weight": list(range(0, 512, 2))}
    new = changed_at(old, {**where, "norm.weight": list(range(16))})
    base = folder(tmp_path / "base", old, shards=shards)
    result = folder(tmp_path / "result", new, shards=3 - shards)
    patch = extract(base, result, tmp_path / "p.safetensors")
    assert {n: c.encoding for n, c in patch.tensors.items()} == {
        "embed.weight": "gaps",
        "layers.0.up.weight": "bits",
        "norm.weight": "all",
    }
    apply(base, tmp_path / "p.safetensors", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f.name for f in base.iterdir()}
    for file in base.glob("*.json"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_comparison_is_of_bits_not_of_numbers(tmp_path):
    def floats(*words):
        return torch.tensor(words, dtype=torch.int64).to(torch.int32).view(torch.float32)

    same_nan = floats(QUIET_NAN, 0, 0x3F800000, QUIET_NAN)
    zero_and_nan = floats(QUIET_NAN, 0x80000000, 0x3F800000, OTHER_NAN)
    old = {"a": same_nan, "b": torch.tensor([0.0, -0.0], dtype=torch.bfloat16)}
    new = {"a": zero_and_nan, "b": torch.tensor([0.0, 0.0], dtype=torch.bfloat16)}
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    patch = extract(base, result, tmp_path / "p")
    assert [p.tolist() for p in patch.positions("a")] == [[1, 3]]
    assert [p.tolist() for p in patch.positions("b")] == [[1]]
    apply(base, tmp_path / "p", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)


def test_integer_bool_scalar_and_empty_tensors_are_patched(tmp_path):
    old = {
        "long": torch.tensor([2**60, 5, -1]),
        "byte": torch.arange(40, dtype=torch.uint8),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
    }
    new = {name: tensor.clone() for name, tensor in old.items()}
    new["long"][0] += 1  # the same number in float32
    new["byte"][39] = 7
    new["flag"][1] = True
    new["scalar"] += 1
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    patch = extract(base, result, tmp_path / "p")
    assert {n: c.count for n, c in patch.tensors.items()} == dict.fromkeys(
        ["byte", "flag", "long", "scalar"], 1
    )
    apply(base, tmp_path / "p", tmp_path / "out")
    assert_same_models(tmp_path / "out", result)
    assert verify(base, result, patch=tmp_path / "p").ok


@settings(deadline=None, max_examples=25)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    shares=st.lists(st.sampled_from([0.0, 0.004, 0.1, 0.9, 1.0]), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_random_bit_changes_come_back(tmp_path_factory, dtype, shares, seed):
    tmp_path = tmp_path_factory.mktemp("p")
    chance = random.Random(seed)
    old = weights(dtype, seed)
    new = {name: tensor.clone() for name, tensor in old.items()}
    expected = 0
    for tensor, share in zip(new.values(), shares, strict=True):
        flat = tensor.view(-1).view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
        for i in range(len(flat)):
            if chance.random() < share:
                flat[i] ^= 1 << chance.randrange(15)
                expected += 1
    base, result = folder(tmp_path / "b", old), folder(tmp_path / "r", new, shards=2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patch_folders, "_CHUNK", 64)
        patched.setattr(patch_positions, "_CHUNK", 64)
        if not expected:
            with pytest.raises(WagleError, match="nothing changed"):
                extract(base, result, tmp_path / "p")
            return
        assert extract(base, result, tmp_path / "p").changed == expected
        apply(base, tmp_path / "p", tmp_path / "out")
        assert verify(base, result, patch=tmp_path / "p").patch_matches
    assert_same_models(tmp_path / "out", result)


def test_the_base_is_left_as_it_was(trio, tmp_path):
    base, _, path = trio
    before = {f.name: f.read_bytes() for f in base.iterdir()}
    apply(base, path, tmp_path / "out")
    assert {f.name: f.read_bytes() for f in base.iterdir()} == before


def test_patching_a_tensor_leaves_the_old_one_alone(trio):
    old = weights()["embed.weight"]
    new = Patch.load(trio[2]).patched("embed.weight", old)
    assert bits(old) == bits(weights()["embed.weight"])
    assert bits(new) == bits(all_tensors(trio[1])["embed.weight"])


# What is refused


def test_nothing_changed_is_an_error(tmp_path):
    base = folder(tmp_path / "base", weights())
    same = folder(tmp_path / "same", weights(), shards=2)
    with pytest.raises(WagleError, match=r"nothing changed between .*base and .*same"):
        extract(base, same, tmp_path / "p")
    assert not list(tmp_path.glob("p*"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("norm.weight", torch.zeros(17), r"norm.weight is float32 \[16\] in .* \[17\] in"),
        ("norm.weight", torch.zeros(16).half(), r"norm.weight is float32 .* float16 \[16\] in"),
        ("norm.weight", None, r"result has no tensor 'norm.weight', .*base has it"),
        ("extra.weight", torch.zeros(1), r"base has no tensor 'extra.weight', .*result has it"),
    ],
)
@pytest.mark.parametrize("call", ["extract", "verify"])
def test_models_of_another_layout_are_refused_by_tensor(tmp_path, name, tensor, message, call):
    old = weights()
    new = {n: t for n, t in {**old, name: tensor}.items() if t is not None}
    base, result = folder(tmp_path / "base", old), folder(tmp_path / "result", new)
    with pytest.raises(WagleError, match=message):
        extract(base, result, tmp_path / "p") if call == "extract" else verify(base, result)


def test_a_patch_among_the_weights_of_a_model_is_refused(trio):
    base, result, _ = trio
    with pytest.raises(WagleError, match="lies among the weights"):
        extract(base, result, result / "patch.safetensors")
    assert not (result / "patch.safetensors").exists()


def test_a_wrong_base_is_refused(trio, tmp_path):
    base, result, path = trio
    with pytest.raises(WagleError) as raised:
        apply(result, path, tmp_path / "out")
    ours, theirs = fingerprint(base)[:6], fingerprint(result)[:6]
    assert str(raised.value) == (
        f"patch {path} belongs to base {ours}, {result} is {theirs} (what the patch makes: it was "
        "applied already); apply it to the model that it was made for"
    )
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"norm.weight": [15], "embed.weight": [5]}, " (first differing tensor: embed.weight);"),
        ({"norm.weight": [15]}, " (first differing tensor: norm.weight);"),
        ({"layers.0.up.weight": [300, 301]}, " (first differing tensor: layers.0.up.weight);"),
        ({"layers.0.up.weight": [300]}, " (they differ only in weights that the patch replaces);"),
    ],
)
def test_a_changed_base_is_refused_by_the_first_tensor_that_differs(trio, tmp_path, where, said):
    _, _, path = trio
    other = folder(tmp_path / "other", changed_at(weights(), where))
    with pytest.raises(WagleError) as raised:
        apply(other, path, tmp_path / "out")
    assert said in str(raised.value)
    assert not list(tmp_path.glob("out*"))


def test_a_base_that_differs_in_a_tensor_that_changes_everywhere_is_refused_by_it(tmp_path):
    old = weights()
    base = folder(tmp_path / "base", old)
    result = folder(tmp_path / "r", changed_at(old, {"embed.weight": list(range(800))}))
    other = folder(tmp_path / "other", changed_at(old, {"embed.weight": [1], "norm.weight": [0]}))
    extract(base, result, tmp_path / "p")
    with pytest.raises(WagleError, match=r"first differing tensor: embed\.weight"):
        apply(other, tmp_path / "p", tmp_path / "out")


@pytest.mark.parametrize("lacks", [True, False])
def test_a_base_with_other_tensors_is_refused_by_the_first_of_them(trio, tmp_path, lacks):
    tensors = weights()
    if lacks:
        del tensors["layers.0.up.weight"]
    else:
        tensors["layers.0.gate.weight"] = torch.ones(2)
    other = folder(tmp_path / "other", tensors)
    name = "layers.0.up.weight" if lacks else "layers.0.gate.weight"
    with pytest.raises(WagleError, match=f"first differing tensor: {name}"):
        apply(other, trio[2], tmp_path / "out")


def test_a_base_in_another_precision_is_refused_although_its_fingerprint_is_equal(tmp_path):
    old = weights(torch.bfloat16)
    base = folder(tmp_path / "base", old)
    result = folder(tmp_path / "result", changed_at(old, {"norm.weight": [1]}))
    wide = folder(tmp_path / "wide", {n: t.float() for n, t in old.items()})
    extract(base, result, tmp_path / "p")
    assert fingerprint(wide) == fingerprint(base)
    with pytest.raises(
        WagleError, match=r"norm.weight is bfloat16 \[16\] in the patch and float32"
    ):
        apply(wide, tmp_path / "p", tmp_path / "out")


def test_an_occupied_output_folder_is_left_alone(trio, tmp_path):
    base, _, path = trio
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    for out in [tmp_path / "out", tmp_path / "out" / "letter.txt", base]:
        with pytest.raises(WagleError, match="exists already"):
            apply(base, path, out)
    assert (tmp_path / "out" / "letter.txt").read_text() == "dear"


def test_an_empty_output_folder_is_used(trio, tmp_path):
    base, result, path = trio
    (tmp_path / "out").mkdir()
    apply(base, path, tmp_path / "out")
    assert_same_models(tmp_path / "out", result)


def test_a_result_that_is_not_the_promised_one_leaves_nothing(trio, tmp_path):
    base, _, path = trio
    rewrite(path, result="0" * 64)
    with pytest.raises(WagleError, match="instead of 000000; nothing was kept"):
        apply(base, path, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_failure_in_the_second_shard_leaves_nothing(tmp_path, monkeypatch):
    old = weights()
    base = folder(tmp_path / "base", old, shards=2)
    result = folder(tmp_path / "result", changed_at(old, {"norm.weight": [1]}), shards=2)
    extract(base, result, tmp_path / "p")
    written = []

    write = module._write_shard

    def failing(source, target, patches):
        if written:
            raise KeyboardInterrupt
        written.append(target)
        write(source, target, patches)

    monkeypatch.setattr(module, "_write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        apply(base, tmp_path / "p", tmp_path / "out")
    assert written
    assert not list(tmp_path.glob("out*"))


# Folders as transformers writes them


@pytest.fixture
def large(tmp_path, tokenizer):
    """A folder of many shards with all that may lie beside weights, and another version of it."""
    base, result = tmp_path / "base", tmp_path / "result"
    model = make_model("llama-tied")
    model.save_pretrained(base, max_shard_size="20KB")
    tokenizer.save_pretrained(base)
    (base / "README.md").write_text("A card.")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[::7] += 0.5
    save_model(model, base, result)
    return base, result


def test_a_folder_of_many_shards_is_the_base_in_all_but_its_weights(large, tmp_path):
    base, result = large
    (base / "pytorch_model.bin").write_bytes(b"old weights")
    extract(base, result, tmp_path / "p")
    umask = os.umask(0o022)
    try:
        apply(base, tmp_path / "p", tmp_path / "out")
    finally:
        os.umask(umask)
    out = tmp_path / "out"
    assert len(list(base.glob("*.safetensors"))) > 4
    names = {file.name for file in base.iterdir()} - {"pytorch_model.bin"}
    assert names >= {"generation_config.json", "chat_template.jinja", "tokenizer.json", "README.md"}
    assert {file.name for file in out.iterdir()} == names
    for name in names:
        same = (out / name).read_bytes() == (base / name).read_bytes()
        assert same != name.endswith(".safetensors"), name
        assert (out / name).stat().st_mode & 0o777 == 0o644
    assert_same_models(out, result)
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    for file in out.glob("*.safetensors"):
        with safe_open(file, framework="pt") as found, safe_open(base / file.name, "pt") as old:
            assert {name for name, home in index.items() if home == file.name} == {*found.keys()}
            assert found.metadata() == old.metadata() == {"format": "pt"}


def test_the_folder_loads_as_a_model_and_a_tokenizer(large, tmp_path):
    base, result = large
    extract(base, result, tmp_path / "p")
    apply(base, tmp_path / "p", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    wanted = AutoModelForCausalLM.from_pretrained(result)
    for (name, one), (_, other) in zip(
        model.named_parameters(), wanted.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    chat = [{"role": "user", "content": "Who?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|start|>user\nWho?<|end|>\n<|start|>assistant\n"


# Undo


@pytest.fixture
def undone(tmp_path):
    """Base, result with changes of every encoding, patch and undo file."""
    old = weights()
    where = {
        "embed.weight": [i for i in range(800) if i % 7 in (0, 2)],
        "layers.0.up.weight": list(range(0, 512, 2)),
        "norm.weight": list(range(16)),
    }
    base = folder(tmp_path / "base", old, shards=2)
    result = folder(tmp_path / "result", changed_at(old, where), shards=2)
    extract(base, result, tmp_path / "p", undo=tmp_path / "private" / "u")
    return base, result, tmp_path / "p", tmp_path / "private" / "u"


def test_an_undo_file_gives_the_base_back_bit_for_bit(undone, tmp_path):
    base, result, _, path = undone
    undo(result, path, tmp_path / "out")
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        f.name: f.read_bytes() for f in base.iterdir()
    }


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_reads_an_undo_file_whatever_the_umask(trio, tmp_path, umask):
    base, result, _ = trio
    before = os.umask(umask)
    try:
        extract(base, result, tmp_path / "again", undo=tmp_path / "u")
    finally:
        os.umask(before)
    assert (tmp_path / "u").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o666 & ~umask


def test_no_old_value_is_written_unless_asked(trio, tmp_path):
    base, result, path = trio
    extract(base, result, tmp_path / "private" / "p")
    assert [f.name for f in (tmp_path / "private").iterdir()] == ["p"]
    assert (tmp_path / "private" / "p").read_bytes() == path.read_bytes()


def test_an_undo_file_is_no_patch_and_a_patch_is_no_undo_file(undone, tmp_path):
    base, result, patch, path = undone
    for call in [
        lambda: apply(result, path, tmp_path / "out"),
        lambda: verify(base, result, patch=path),
        lambda: Patch.load(path),
    ]:
        with pytest.raises(WagleError, match=r"u is not a wagle patch \(format wagle-undo/1\)"):
            call()
    with pytest.raises(WagleError, match=r"p is not a wagle undo file \(format wagle-patch/2\)"):
        undo(result, patch, tmp_path / "out")


@pytest.mark.parametrize("place", [15, 1])
def test_another_result_is_refused_by_the_first_tensor_that_differs(undone, tmp_path, place):
    _, result, _, path = undone
    tensors = changed_at(all_tensors(result), {"norm.weight": [place]})
    other = folder(tmp_path / "other", tensors)
    with pytest.raises(WagleError) as raised:
        undo(other, path, tmp_path / "out")
    assert str(raised.value) == (
        f"undo file {path} belongs to result {fingerprint(result)[:6]}, {other} is "
        f"{fingerprint(other)[:6]} (first differing tensor: norm.weight); apply it to the model "
        "that it was made for"
    )
    assert not (tmp_path / "out").exists()


def test_a_base_is_not_undone_twice(undone, tmp_path):
    base, _, _, path = undone
    with pytest.raises(WagleError, match="what the undo file makes: it was applied already"):
        undo(base, path, tmp_path / "out")


def test_an_undo_file_over_the_patch_or_among_weights_is_refused(trio, tmp_path):
    base, result, _ = trio
    with pytest.raises(WagleError, match="cannot be both patch and undo file"):
        extract(base, result, tmp_path / "x", undo=tmp_path / "y" / ".." / "x")
    with pytest.raises(WagleError, match="lies among the weights"):
        extract(base, result, tmp_path / "x", undo=base / "undo")
    assert not (tmp_path / "x").exists()


def test_values_that_do_not_fit_into_memory_give_the_same_files(undone, tmp_path, monkeypatch):
    base, result, patch, path = undone
    monkeypatch.setattr(module, "_IN_MEMORY", 1000)
    extract(base, result, tmp_path / "q", undo=tmp_path / "v")
    assert (tmp_path / "q").read_bytes() == patch.read_bytes()
    assert (tmp_path / "v").read_bytes() == path.read_bytes()
