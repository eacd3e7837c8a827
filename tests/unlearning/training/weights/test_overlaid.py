"""Selected entries whose values lie over blocks on disk, in memory and in mapped files."""

import pytest
import torch

from tests.unlearning.conftest import current, folder_of, mask_of
from wagle.model.loading import load_model
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.system.mapped import is_mapped
from wagle.unlearning.training.weights import choosing
from wagle.unlearning.training.weights.selected import SelectedWeights


@pytest.fixture(params=[("float32", False), ("float32", True), ("bfloat16", True)], ids=str)
def made(request, monkeypatch):
    """A streamed model, a mask, its selected weights, and whether vectors lie in files."""
    dtype, on_disk = request.param
    if on_disk:
        monkeypatch.setattr(choosing, "SMALL", 0)
    folder = folder_of("llama-untied")
    mask = mask_of(load_model(folder), 0.3)
    model = open_streamed(folder, dtype)
    return model, mask, SelectedWeights(model, mask), on_disk


def test_the_masters_are_the_selected_entries_and_lie_where_they_should(made):
    model, mask, selected, on_disk = made
    before = current(model)
    for name, master in selected.named_masters():
        assert torch.equal(master.detach(), before[name][mask[name]].float())
        assert is_mapped(master) == on_disk
    assert selected.count == mask.count
    blocks = stream_of(model).names
    assert [len(part) for part in selected.parts()] == [1, *map(len, blocks), 1, 1]


def test_what_is_written_back_is_the_model_and_a_reset_makes_it_the_folder_s(made):
    model, mask, selected, _ = made
    before = current(model)
    with torch.no_grad():
        for _, master in selected.named_masters():
            master.add_(0.5)
    selected.write_back()
    for name, value in current(model).items():
        wanted = before[name].clone()
        wanted[mask[name]] = (wanted[mask[name]].float() + 0.5).to(wanted.dtype)
        assert torch.equal(value, wanted)
    assert selected.changed() == mask.count
    selected.verify()
    selected.reset()
    assert selected.changed() == 0
    assert all(torch.equal(value, before[name]) for name, value in current(model).items())


def test_a_shift_is_undone_bit_for_bit(made):
    model, _, selected, _ = made
    before = current(model)
    with selected.shifted([torch.ones_like(m) for _, m in selected.named_masters()]):
        assert any(not torch.equal(value, before[name]) for name, value in current(model).items())
    assert all(torch.equal(value, before[name]) for name, value in current(model).items())


def test_gradients_are_clipped_to_the_norm_of_all_of_them(made):
    _, _, selected, _ = made
    gradients = selected.kept(torch.full_like(m, 2.0) for _, m in selected.named_masters())
    selected.give(gradients)
    norm = 2 * selected.count**0.5
    assert selected.ready(1.0) == pytest.approx(norm, rel=1e-5)
    for _, master in selected.named_masters():
        torch.testing.assert_close(master.grad, torch.full_like(master, 2 / norm))


def test_a_weight_of_the_head_that_changed_unasked_is_noticed(made):
    model, mask, selected, _ = made
    head = model.get_parameter("lm_head.weight")
    place = (~mask["lm_head.weight"]).nonzero()[0]
    with torch.no_grad():
        head[place[0], place[1]] += 1
    with pytest.raises(RuntimeError, match=r"unselected weights of lm_head\.weight changed"):
        selected.verify()
