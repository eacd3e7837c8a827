import dataclasses
import json
import math
import random
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wagle import patch as module
from wagle.errors import WagleError
from wagle.files import save_tensors
from wagle.mask import Mask
from wagle.patch import FORMAT, Patch, Positions, apply, decode, encode, extract, verify
from wagle.weights import fingerprint

QUIET_NAN, OTHER_NAN = 0x7FC00001, 0x7FC00002  # two NaNs that differ in their payload


def folder(path, tensors, *, shards=1):
    """A model folder of these tensors: one file, or several with an index."""
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text('{"words": []}')
    names = list(tensors)
    if shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path
    home = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        home.update(dict.fromkeys(names[shard::shards], file))
        save_file({n: tensors[n] for n in names[shard::shards]}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    return path


def weights(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (50, 16), "layers.0.up.weight": (16, 32), "norm.weight": (16,)}
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}


def changed_at(tensors, where):
    """The same tensors with one added at flat positions, by name."""
    new = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, positions in where.items():
        new[name].view(-1)[positions] += 1
    return new


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).tolist()


def all_tensors(path):
    found = {}
    for file in path.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def assert_same_models(a, b):
    a, b = all_tensors(a), all_tensors(b)
    assert {n: (t.dtype, t.shape) for n, t in a.items()} == {
        n: (t.dtype, t.shape) for n, t in b.items()
    }
    for name in a:
        assert bits(a[name]) == bits(b[name]), name


@pytest.fixture
def trio(tmp_path):
    """Base, result with five changed weights, and their patch."""
    old = weights()
    base = folder(tmp_path / "base", old)
    new = changed_at(old, {"embed.weight": [0, 3, 799], "layers.0.up.weight": [7, 300]})
    result = folder(tmp_path / "result", new)
    extract(base, result, tmp_path / "p.safetensors")
    return base, result, tmp_path / "p.safetensors"


def rewrite(path, **fields):
    """Save a patch again with other fields, its checksum made to fit."""
    patch = Patch.load(path)
    for name, value in fields.items():
        setattr(patch, name, value)
    patch.save(path)


# Positions


def coded(positions, size):
    """Encode a list of positions, split into parts as a comparison would."""
    flat = np.zeros(size, dtype=bool)
    flat[positions] = True
    step = module._CHUNK
    return encode((flat[i : i + step] for i in range(0, size, step)), size)


def slow_gap_code(positions):
    """The gap code, one weight at a time."""
    code, after = [], 0
    for position in positions:
        gap = position - after
        while gap >= 255:
            code.append(255)
            gap -= 255
        code.append(gap)
        after = position + 1
    return code


def decoded(positions, size):
    return [int(p) for part in decode(positions, size) for p in part]


@st.composite
def sparse_or_dense(draw):
    """Sorted positions and a size; gaps near multiples of 255 are frequent."""
    edge = st.sampled_from([0, 1, 253, 254, 255, 256, 257, 509, 510, 511, 765])
    gaps = draw(st.lists(st.one_of(edge, st.integers(0, 40), st.integers(0, 3000)), max_size=40))
    positions = list(np.cumsum([g + 1 for g in gaps]) - 1) if gaps else []
    size = (int(positions[-1]) + 1 if gaps else 0) + draw(st.integers(0, 600))
    return [int(p) for p in positions], size


@pytest.mark.parametrize("step", [8, 64, 1 << 22])
@settings(deadline=None, max_examples=150)
@given(case=sparse_or_dense())
def test_any_positions_come_back_whatever_the_chunks(step, case):
    positions, size = case
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_CHUNK", step)
        code = coded(positions, size)
        assert decoded(code, size) == positions
        assert code.count == len(positions)


@settings(deadline=None, max_examples=200)
@given(case=sparse_or_dense())
def test_the_smaller_code_is_stored(case):
    positions, size = case
    code = coded(positions, size)
    gaps, mask = slow_gap_code(positions), math.ceil(size / 8)
    if len(positions) == size:
        assert (code.encoding, len(code.code)) == ("all", 0)
    elif len(gaps) < mask:
        assert (code.encoding, code.code.tolist()) == ("gaps", gaps)
    else:
        flat = np.isin(np.arange(size), positions)
        assert code.encoding == "bits"
        assert code.code.tolist() == np.packbits(flat, bitorder="little").tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_dense_positions_come_back(size, chance):
    positions = sorted(chance.sample(range(size), chance.randint(0, size)))
    assert decoded(coded(positions, size), size) == positions


@pytest.mark.parametrize(
    ("gap", "code"),
    [
        (0, [0]),
        (254, [254]),
        (255, [255, 0]),
        (256, [255, 1]),
        (510, [255, 255, 0]),
    ],
)
def test_gap_code_of_one_position_is_as_worked_out_by_hand(gap, code):
    assert coded([gap], 5000).code.tolist() == code
    assert coded([9, 10 + gap], 5000).code.tolist() == [9, *code]


def test_full_is_all_and_empty_has_no_bytes():
    assert coded(list(range(1000)), 1000).encoding == "all"
    empty = coded([], 1000)
    assert (empty.encoding, len(empty.code), empty.count) == ("gaps", 0, 0)


@pytest.mark.parametrize(
    ("encoding", "code", "count", "size"),
    [
        ("gaps", [3, 255], 1, 9999),  # a gap that does not end
        ("gaps", [3, 4], 1, 9999),  # more positions than counted
        ("gaps", [3, 4], 2, 8),  # 3 and 8: one past the end
        ("gaps", [], 0, 8),
        ("bits", [1, 0], 1, 8),  # too long
        ("bits", [3], 1, 8),
        ("bits", [16], 1, 4),  # a bit past the end
        ("all", [], 3, 4),
        ("runs", [1], 1, 4),
    ],
)
def test_codes_that_fit_no_tensor_are_found(encoding, code, count, size):
    assert not module._sound(Positions(encoding, np.array(code, dtype=np.uint8), count), size)


@settings(deadline=None, max_examples=100)
@given(case=sparse_or_dense())
def test_every_code_we_make_is_sound(case):
    positions, size = case
    if positions:
        assert module._sound(coded(positions, size), size)


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
        patched.setattr(module, "_CHUNK", 64)
        if not expected:
            with pytest.raises(WagleError, match="nothing changed"):
                extract(base, result, tmp_path / "p")
            return
        assert extract(base, result, tmp_path / "p").changed == expected
        apply(base, tmp_path / "p", tmp_path / "out")
        assert verify(base, result, patch=tmp_path / "p").patch_matches
    assert_same_models(tmp_path / "out", result)


def test_patches_stack(trio, tmp_path):
    base, result, first = trio
    third = folder(tmp_path / "third", changed_at(all_tensors(result), {"norm.weight": [2]}))
    extract(result, third, tmp_path / "second")
    apply(base, first, tmp_path / "one")
    apply(tmp_path / "one", tmp_path / "second", tmp_path / "two")
    assert_same_models(tmp_path / "two", third)


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


# The file


def test_the_file_is_what_the_format_says(trio):
    base, result, path = trio
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["wagle"])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (metadata["format"], metadata["base"]) == ("wagle-patch/1", fingerprint(base))
    assert metadata["result"] == fingerprint(result)
    assert metadata["tensors"]["embed.weight"] == {
        "shape": [50, 16],
        "dtype": "float32",
        "encoding": "gaps",
        "count": 3,
    }
    assert set(stored) == {
        "embed.weight::values",
        "embed.weight::gaps",
        "layers.0.up.weight::values",
        "layers.0.up.weight::gaps",
    }
    # 0, 3 and 799: none, two, and 795 = 3 * 255 + 30 unchanged weights before
    assert stored["embed.weight::gaps"].tolist() == [0, 2, 255, 255, 255, 30]
    new = all_tensors(result)["embed.weight"].view(-1)
    assert stored["embed.weight::values"].tolist() == new[[0, 3, 799]].tolist()


def test_load_and_save_keep_the_patch_to_the_byte(trio, tmp_path):
    path = trio[2]
    patch = Patch.load(path)
    assert patch.changed == 5
    patch.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_the_patch_holds_no_old_value(tmp_path):
    generator = random.Random(5)
    words = [generator.randrange(0x11111111, 0x7EEEEEEE) for _ in range(400)]
    old = {"w": torch.tensor(words, dtype=torch.int32).view(torch.float32)}
    for name, where in {"gaps": [5, 77, 390], "bits": range(0, 400, 2), "all": range(400)}.items():
        new = {"w": old["w"].clone()}
        new["w"].view(torch.int32)[list(where)] ^= 0x01010101
        base = folder(tmp_path / f"base-{name}", old)
        result = folder(tmp_path / f"result-{name}", new)
        path = tmp_path / f"{name}.safetensors"
        assert extract(base, result, path).tensors["w"].encoding == name
        data = path.read_bytes()
        assert not [word for word in words if struct.pack("<i", word) in data]
        kept = new["w"].view(torch.int32)[list(where)].tolist()
        assert all(struct.pack("<i", word) in data for word in kept)  # the search does find values


def test_a_file_cut_anywhere_is_an_error(trio):
    path = trio[2]
    data = path.read_bytes()
    for length in [0, 4, 8, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(WagleError, match="truncated or corrupt"):
            Patch.load(path)


def test_a_flip_of_any_byte_is_an_error(trio):
    path = trio[2]
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(WagleError, match=r"corrupt|not a wagle patch|has format") as raised:
            Patch.load(path)
        assert "\n" not in str(raised.value)


def test_a_changed_value_says_corrupt_and_what_to_do(trio):
    path = trio[2]
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    with pytest.raises(WagleError, match=r"p.safetensors is corrupt: .*; make it again"):
        Patch.load(path)


def test_a_newer_format_is_refused_by_name(trio):
    path = trio[2]
    stored = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["wagle"])
    save_tensors(path, stored, {**metadata, "format": "wagle-patch/2"})
    with pytest.raises(WagleError, match=f"has format wagle-patch/2, this wagle reads {FORMAT}"):
        Patch.load(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "is not a wagle patch"),
        ({"format": "wagle-mask/1"}, "is not a wagle patch"),
        ([1], "is corrupt"),
        ("text", "is corrupt"),
    ],
)
def test_another_kind_of_file_is_not_a_patch(tmp_path, metadata, message):
    save_tensors(tmp_path / "m", {"a": torch.zeros(2)}, metadata)
    with pytest.raises(WagleError, match=message):
        Patch.load(tmp_path / "m")


@pytest.mark.parametrize(
    "fields",
    [{"count": 4}, {"shape": (2, 2)}, {"dtype": "bfloat16"}, {"encoding": "bits"}, {"count": 0}],
)
def test_a_patch_at_odds_with_itself_is_refused_though_its_checksum_fits(trio, fields):
    path = trio[2]
    change = Patch.load(path).tensors["embed.weight"]
    tensors = {"embed.weight": dataclasses.replace(change, **fields)}
    rewrite(path, tensors={**Patch.load(path).tensors, **tensors})
    with pytest.raises(WagleError, match="corrupt"):
        Patch.load(path)


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
    assert f"p.safetensors belongs to base {ours}, {result} is {theirs}; " in str(raised.value)
    assert not list(tmp_path.glob("out*"))


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

    def failing(path, tensors):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        save_file(tensors, path)

    monkeypatch.setattr(module, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        apply(base, tmp_path / "p", tmp_path / "out")
    assert written
    assert not list(tmp_path.glob("out*"))


# Verify


def mask_of(tensors, selected, *, ratios=(0.5,), model="0" * 64):
    """A mask with these levels: {name: {level: positions}}; what is not named is excluded."""
    levels = {n: torch.zeros(t.shape, dtype=torch.uint8) for n, t in tensors.items()}
    for name, chosen in selected.items():
        for level, positions in chosen.items():
            levels[name].view(-1)[positions] = level
    counts = [
        sum(int((level >= len(ratios) - i).sum()) for level in levels.values())
        for i in range(len(ratios))
    ]
    metadata = {"candidates": 100, "thresholds": [0.0] * len(ratios), "model": model}
    return Mask.from_levels(levels, ratios=ratios, counts=counts, metadata=metadata)


def test_verify_counts_what_changed(trio):
    base, result, path = trio
    found = verify(base, result, patch=path)
    assert (found.changed, found.total) == (5, 50 * 16 + 16 * 32 + 16)
    assert found.tensors == {"embed.weight": 3, "layers.0.up.weight": 2}
    assert (found.outside_mask, found.mask_count, found.mask_of_base) == (None, None, None)
    assert found.patch_matches
    assert found.ok
    assert verify(base, base).changed == 0
    assert verify(base, base).patch_matches is None


def test_changes_inside_the_mask_are_ok(trio, tmp_path):
    base, result, _ = trio
    selected = {
        "embed.weight": {1: [0, 3, 799]},
        "layers.0.up.weight": {1: [7, 8, 300]},
    }
    mask = mask_of(weights(), selected, model=fingerprint(base))
    mask.save(tmp_path / "mask")
    found = verify(base, result, mask=tmp_path / "mask")
    assert (found.outside, found.outside_mask, found.mask_count) == ({}, 0, 6)
    assert found.mask_of_base
    assert found.ok


@pytest.mark.parametrize("step", [8, 1 << 22])
def test_changes_outside_the_mask_are_counted_by_tensor(trio, step, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", step)
    base, result, _ = trio
    mask = mask_of(weights(), {"embed.weight": {1: [1, 3]}, "layers.0.up.weight": {1: [7, 300]}})
    found = verify(base, result, mask=mask)
    assert found.outside == {"embed.weight": 2}
    assert found.outside_mask == 2
    assert not found.mask_of_base
    assert not found.ok


def test_a_ladder_allows_what_its_largest_ratio_selects(trio):
    base, result, _ = trio
    selected = {"embed.weight": {1: [0, 3], 2: [799]}, "layers.0.up.weight": {2: [7], 1: [300]}}
    mask = mask_of(weights(), selected, ratios=(0.1, 0.5))
    found = verify(base, result, mask=mask)
    assert (found.ok, found.mask_count) == (True, 5)
    assert verify(base, result, mask=mask.at(0.1)).outside_mask == 3


def test_a_tensor_that_the_mask_does_not_know_may_not_change(trio):
    base, result, _ = trio
    known = {n: t for n, t in weights().items() if n != "embed.weight"}
    mask = mask_of(known, {"layers.0.up.weight": {1: [7, 300]}})
    assert verify(base, result, mask=mask).outside == {"embed.weight": 3}


def test_a_mask_of_other_shapes_is_refused(trio):
    base, result, _ = trio
    mask = mask_of({**weights(), "norm.weight": torch.zeros(17)}, {})
    with pytest.raises(WagleError, match=r"norm.weight is \[17\] in the mask and \[16\] in"):
        verify(base, result, mask=mask)


def test_a_patch_of_other_models_is_told_by_both_ends(trio, tmp_path):
    base, result, path = trio
    other = folder(tmp_path / "other", changed_at(weights(), {"norm.weight": [4, 5]}))
    found = verify(base, other, patch=path)
    assert len(found.patch_problems) == 4  # its result, and three tensors
    assert f"the patch makes {fingerprint(result)[:6]}" in found.patch_problems[0]
    assert "norm.weight: 2 weights" in found.patch_problems[-1]
    assert not found.patch_matches
    assert not found.ok
    backwards = verify(result, base, patch=path)
    assert f"belongs to base {fingerprint(base)[:6]}" in backwards.patch_problems[0]


def test_a_patch_with_one_other_value_does_not_match_though_its_fingerprints_do(trio):
    base, result, path = trio
    patch = Patch.load(path)
    values = patch.values("embed.weight").clone()
    values[1] = -values[1]
    rewrite(path, _stored={**patch._stored, "embed.weight::values": values})
    found = verify(base, result, patch=path)
    assert found.patch_problems == (
        f"embed.weight: 1 weights of base + patch are not those of {result}",
    )


def test_a_patch_of_another_shape_is_a_problem_not_a_crash(trio, tmp_path):
    _, _, path = trio
    small = folder(tmp_path / "small", {"embed.weight": torch.zeros(3)})
    found = verify(small, small, patch=path)
    assert not found.ok
    assert any("embed.weight is float32 [50, 16] in the patch" in p for p in found.patch_problems)
    assert any("has no tensor 'layers.0.up.weight'" in p for p in found.patch_problems)


def test_missing_folders_and_files_are_one_line_errors(trio, tmp_path):
    base, result, path = trio
    for call in [
        lambda: extract(base, tmp_path / "none", tmp_path / "p"),
        lambda: apply(base, tmp_path / "none", tmp_path / "out"),
        lambda: apply(tmp_path / "none", path, tmp_path / "out"),
        lambda: verify(base, result, patch=tmp_path / "none"),
        lambda: verify(base, result, mask=tmp_path / "none"),
    ]:
        with pytest.raises(WagleError, match="none does not exist"):
            call()
    shutil.rmtree(base)
    with pytest.raises(WagleError, match="does not exist"):
        verify(base, result)
