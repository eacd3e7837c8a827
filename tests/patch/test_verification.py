import shutil

import pytest
import torch

from tests.patch.models import all_tensors, changed_at, folder, rewrite, weights
from wagle.mask.mask import Mask
from wagle.model.weights import fingerprint
from wagle.patch import folders as patch_folders
from wagle.patch.application import apply
from wagle.patch.extraction import extract
from wagle.patch.file import Patch
from wagle.patch.verification import verify
from wagle.system.errors import WagleError


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
    monkeypatch.setattr(patch_folders, "_CHUNK", step)
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
    assert f"p.safetensors makes {fingerprint(result)[:6]}" in found.patch_problems[0]
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


def test_several_patches_must_give_the_result_in_their_order(trio, tmp_path):
    base, middle, first = trio
    last = folder(tmp_path / "last", changed_at(all_tensors(middle), {"norm.weight": [0, 9]}))
    extract(middle, last, tmp_path / "second")
    found = verify(base, last, patch=[first, tmp_path / "second"])
    assert (found.changed, found.patches, found.patch_problems) == (7, 2, ())
    backwards = verify(base, last, patch=[tmp_path / "second", first])
    assert f"second belongs to base {fingerprint(middle)[:6]}" in backwards.patch_problems[0]
    assert f"p.safetensors makes {fingerprint(middle)[:6]}" in backwards.patch_problems[1]
    short = verify(base, last, patch=[first])
    assert (
        short.patch_problems[1] == f"norm.weight: 2 weights of base + patch are not those of {last}"
    )


def test_independent_patches_give_what_applying_them_in_order_gives(trio, tmp_path):
    base, _, first = trio
    other = folder(tmp_path / "other", changed_at(weights(), {"embed.weight": [3, 4]}, by=2))
    extract(base, other, tmp_path / "second")
    apply(base, [first, tmp_path / "second"], tmp_path / "out")
    assert verify(base, tmp_path / "out", patch=[first, tmp_path / "second"]).ok
    assert verify(base, tmp_path / "out", patch=[tmp_path / "second", first]).patch_problems == (
        f"embed.weight: 1 weights of base + 2 patches are not those of {tmp_path / 'out'}",
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
