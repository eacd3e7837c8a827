"""Keys and values on a shelf: what a plain cache holds, in memory or in a file."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.conftest import make_model
from wagle.evaluation.asking.kv_cache import remaining
from wagle.evaluation.asking.streamed.shelf import Columns, Group, Shelf, can_keep
from wagle.system.errors import WagleError


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("window", [None, 5])
def test_texts_see_what_they_would_in_a_plain_cache_whatever_rows_end(limit, window, tmp_path):
    model = make_model("mistral")
    model.config.sliding_window = window
    model.config.layer_types = None if window is None else ["sliding_attention"] * 2
    plain, shelf = DynamicCache(config=model.config), Shelf(limit, tmp_path)
    group = Group(model, shelf, rows=5, length=4, steps=9)
    torch.manual_seed(0)
    prompts = torch.rand(5, 2, 4, 8)
    for block in range(2):
        plain.update(prompts + block, -prompts, block)
    for start, stop in ((0, 2), (2, 5)):  # the prompts run in two parts
        filling = group.filling(start)
        assert filling.get_seq_length() == 0
        for block in range(2):
            part = prompts[start:stop] + block, -prompts[start:stop]
            keys, values = filling.update(*part, block)
            assert torch.equal(keys, part[0])
            assert torch.equal(values, part[1])
    cache, rows = group.writing(), 5
    for ended in ([], [1], [], [0, 2], [], [1], [], [], []):
        assert cache.get_seq_length() == plain.get_seq_length()
        assert cache.get_mask_sizes(1, 0) == plain.get_mask_sizes(1, 0)
        new = torch.rand(rows, 2, 1, 8)
        for block in range(2):
            mine, theirs = (c.update(new + block, -new, block) for c in (cache, plain))
            assert torch.equal(mine[0], theirs[0])
            assert torch.equal(mine[1], theirs[1])
        if ended:
            going = torch.tensor(remaining(rows, ended))
            cache.batch_select_indices(going)
            plain.batch_select_indices(going)
            rows = len(going)
    assert (shelf.written == 0) == (limit > 0)
    assert list(tmp_path.iterdir()) == []  # the file has no name
    shelf.close()


def test_a_token_is_written_once_and_rows_that_end_move_the_others_at_half(tmp_path, monkeypatch):
    shelf, sizes = Shelf(0, tmp_path), []
    write = Shelf.write
    monkeypatch.setattr(
        Shelf, "write", lambda self, t, at: [sizes.append(t.numel()), write(self, t, at)]
    )
    columns = Columns(shelf, 4, 10)
    columns.write(torch.ones(4, 2, 3, 5), 0)
    columns.write(torch.ones(4, 2, 1, 5), 3)
    assert sizes == [4 * 2 * 3 * 5, 4 * 2 * 1 * 5]
    columns.select(torch.tensor([0, 3, 2]), 4)
    assert len(sizes) == 2
    columns.select(torch.tensor([0, 1]), 4)
    assert sizes[2:] == [2 * 2 * 4 * 5]


def test_memory_is_used_up_to_its_limit_and_the_file_beyond(tmp_path):
    shelf = Shelf(100, tmp_path)
    assert [shelf.reserve(60), shelf.reserve(60), shelf.reserve(40), shelf.reserve(1)] == [
        None,
        0,
        None,
        60,
    ]
    assert (shelf.used, shelf.written) == (100, 61)


def test_a_full_disk_is_one_line_that_says_where(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(
        WagleError, match=r"No space left on device; free some space, or set TMPDIR"
    ):
        Columns(Shelf(0, tmp_path), 1, 2).write(torch.ones(1, 1, 1, 1), 0)


def test_only_models_that_remember_keys_and_values_can_be_kept():
    assert can_keep(make_model("gemma3"))
    strange = make_model("llama-tied")
    own = type("Strange", (type(strange),), {"__module__": "strangers"})
    strange.__class__ = own
    assert not can_keep(strange)
