import logging

import numpy as np
import pytest
import torch

from tests.patch.models import all_tensors, assert_same_models, changed_at, folder, weights
from wagle.model.weights import fingerprint
from wagle.patch.application import apply
from wagle.patch.extraction import extract
from wagle.patch.file import Patch
from wagle.patch.stack import overlaps
from wagle.patch.verification import verify
from wagle.report.text.patch import applied_table, verification_table
from wagle.system.errors import WagleError

ONE = {"embed.weight": [0, 3, 799], "layers.0.up.weight": [7, 300]}
TWO = {"embed.weight": [3, 4, 799], "norm.weight": [2]}  # of a weight and of all of another


@pytest.fixture
def base(tmp_path):
    return folder(tmp_path / "base", weights(), shards=2)


def made(base, name, where, by=1):
    """A changed copy of a folder, and the patch that makes it."""
    result = folder(base.parent / name, changed_at(all_tensors(base), where, by))
    extract(base, result, base.parent / f"{name}.patch")
    return result, base.parent / f"{name}.patch"


def test_a_chain_gives_the_last_result_as_its_last_patch_promises(base, tmp_path, caplog):
    middle, first = made(base, "middle", ONE)
    last, second = made(middle, "last", TWO)
    applied = apply(base, [first, second], tmp_path / "out")
    assert_same_models(tmp_path / "out", last)
    assert (applied.fingerprint, applied.promised) == (fingerprint(last), True)
    assert applied.overlaps[0, 1].tensors == {"embed.weight": 2}
    assert not caplog.records  # in a chain an overlap is no news
    apply(base, first, tmp_path / "one")
    apply(tmp_path / "one", second, tmp_path / "two")
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_chain_may_pass_its_base_again(base, tmp_path):
    middle, first = made(base, "middle", ONE)
    extract(middle, base, tmp_path / "back")
    last, third = made(base, "last", TWO)
    assert apply(base, [first, tmp_path / "back", third], tmp_path / "out").promised
    assert_same_models(tmp_path / "out", last)


def test_of_independent_patches_the_later_one_wins(base, tmp_path, caplog):
    _, first = made(base, "first", ONE, by=1)
    _, second = made(base, "second", TWO, by=2)
    with caplog.at_level(logging.WARNING, "wagle"):
        applied = apply(base, [first, second], tmp_path / "out")
    want = changed_at(changed_at(weights(), ONE, by=1), TWO, by=0)
    for name, places in TWO.items():
        want[name].view(-1)[places] = weights()[name].view(-1)[places] + 2
    for name, tensor in all_tensors(tmp_path / "out").items():
        assert torch.equal(tensor, want[name]), name
    assert applied.fingerprint == fingerprint(tmp_path / "out")
    assert not applied.promised
    assert [record.getMessage() for record in caplog.records] == [
        f"patch {first} and patch {second} both change 2 weights, 2 of them to different values; "
        "there the later one wins: evaluate the combined model"
    ]


def test_independent_patches_that_do_not_overlap_give_no_warning(base, tmp_path, caplog):
    _, first = made(base, "first", {"embed.weight": [1]})
    _, second = made(base, "second", {"embed.weight": [2], "norm.weight": [1]})
    apply(base, [first, second], tmp_path / "out")
    apply(base, [second, first], tmp_path / "turned")
    assert_same_models(tmp_path / "out", tmp_path / "turned")
    assert not caplog.records


def test_overlaps_are_counted_by_pair_and_tensor(base):
    _, first = made(base, "first", ONE, by=1)
    _, second = made(base, "second", TWO, by=2)
    _, third = made(base, "third", {"embed.weight": [3], "layers.0.up.weight": [7, 8]}, by=1)
    found = overlaps([first, Patch.load(second), third])
    assert {pair: shared.tensors for pair, shared in found.items()} == {
        (0, 1): {"embed.weight": 2},
        (0, 2): {"embed.weight": 1, "layers.0.up.weight": 1},
        (1, 2): {"embed.weight": 1},
    }
    assert {pair: shared.count for pair, shared in found.items()} == {
        (0, 1): 2,
        (0, 2): 2,
        (1, 2): 1,
    }
    assert [shared.differing for shared in found.values()] == [2, 0, 1]


@pytest.mark.parametrize("shares", [(0.05, 0.9), (0.5, 0.3), (1.0, 0.7)])
def test_overlaps_of_many_changes_are_those_of_the_masks(base, tmp_path, shares):
    chance = np.random.default_rng(1)
    one, other = (chance.random(800) < share for share in shares)
    new = weights()["embed.weight"].view(-1)
    _, first = made(base, "first", {"embed.weight": np.flatnonzero(one).tolist()})
    same = chance.random(800) < 0.5  # where both change, half of the values are equal
    second = folder(tmp_path / "other", weights())
    tensors = all_tensors(second)
    flat = tensors["embed.weight"].view(-1)
    flat[torch.from_numpy(other & same)] = new[torch.from_numpy(other & same)] + 1
    flat[torch.from_numpy(other & ~same)] = new[torch.from_numpy(other & ~same)] + 3
    extract(base, folder(tmp_path / "again", tensors), tmp_path / "second.patch")
    found = overlaps([first, tmp_path / "second.patch"])[0, 1]
    assert found.count == np.count_nonzero(one & other)
    assert found.differing == np.count_nonzero(one & other & ~same)


def test_patches_of_models_of_other_kinds_have_no_overlap(base, tmp_path):
    _, first = made(base, "first", ONE)
    wide = folder(tmp_path / "wide", {"embed.weight": torch.zeros(3)})
    _, second = made(wide, "wider", {"embed.weight": [0]})
    with pytest.raises(
        WagleError, match=r"embed.weight is float32 \[50, 16\] in patch .* of one model"
    ):
        overlaps([first, second])


def test_a_patch_on_another_result_is_refused_by_both_fingerprints(base, tmp_path):
    middle, first = made(base, "middle", ONE)
    stranger, _ = made(base, "stranger", {"norm.weight": [5]})
    _, second = made(stranger, "second", TWO)
    with pytest.raises(WagleError) as raised:
        apply(base, [first, second], tmp_path / "out")
    assert str(raised.value) == (
        f"patch {second} belongs to base {fingerprint(stranger)[:6]}, but patch {first} makes "
        f"{fingerprint(middle)[:6]} and {base} is {fingerprint(base)[:6]}; each must be made on "
        "the result of the one before, or all on one base"
    )
    assert not list(tmp_path.glob("out*"))


def test_neither_a_wrong_order_nor_a_mixed_stack_is_applied(base, tmp_path):
    middle, first = made(base, "middle", ONE)
    _, second = made(middle, "last", TWO)
    _, beside = made(base, "beside", {"norm.weight": [1]})
    with pytest.raises(WagleError, match=f"last.patch belongs to base {fingerprint(middle)[:6]}"):
        apply(base, [second, first], tmp_path / "out")
    with pytest.raises(WagleError, match=f"beside.patch belongs to base {fingerprint(base)[:6]}"):
        apply(base, [first, second, beside], tmp_path / "out")
    with pytest.raises(WagleError, match=f"beside.patch belongs to base {fingerprint(base)[:6]}"):
        apply(base, [first, beside, second], tmp_path / "out")
    with pytest.raises(WagleError, match="no patch was given"):
        apply(base, [], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_tables_say_what_is_promised_and_where_patches_overlap(base, tmp_path):
    _, first = made(base, "first", ONE, by=1)
    _, second = made(base, "second", TWO, by=2)
    applied = apply(base, [first, second], tmp_path / "out")
    assert applied_table(applied, ["a", "b"]).splitlines() == [
        f"result       {applied.fingerprint[:12]}, which no patch promises: they were made "
        "independently",
        "overlap      a and b both change 2 weights, 2 to different values",
        "             embed.weight: 2",
    ]
    one = apply(base, first, tmp_path / "one")
    assert applied_table(one, ["a"]) == (
        f"result       {one.fingerprint[:12]}, as the patch promises"
    )
    both = verification_table(verify(base, tmp_path / "out", patch=[first, second]))
    assert "patches      give the result bit for bit, in this order" in both
    wrong = verification_table(verify(base, tmp_path / "out", patch=first))
    assert "patch        DOES NOT FIT" in wrong
