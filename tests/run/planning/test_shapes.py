"""The shape of a model, from its configuration alone."""

import math

import pytest

from tests.conftest import make_model
from wagle.run.planning.shapes import has_weights, shape_of
from wagle.system.errors import WagleError


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "qwen2", "gemma2"])
def test_every_weight_is_counted_once_and_in_its_place(family, tmp_path):
    model = make_model(family)
    model.config.save_pretrained(tmp_path)
    assert not has_weights(tmp_path)
    found = shape_of(tmp_path)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    inside = {n: size for n, size in sizes.items() if ".0." in n or ".1." in n}
    assert found.total == sum(sizes.values())
    assert found.stem + found.head == found.total - sum(inside.values())
    assert found.blocks * found.block == sum(inside.values())
    assert found.largest == max(sizes.values())
    assert found.tied == ("lm_head.weight" not in sizes)
    matrices = [p.shape for n, p in model.named_parameters() if n in inside and p.dim() == 2]
    assert found.linear == sum(map(math.prod, matrices))
    assert found.ends == sum(map(sum, matrices))


def test_weights_in_the_folder_say_how_wide_they_are_stored(tmp_path):
    make_model("llama-tied").bfloat16().save_pretrained(tmp_path)
    assert has_weights(tmp_path)
    assert shape_of(tmp_path).stored == 2


def test_what_is_no_model_is_one_line(tmp_path):
    with pytest.raises(WagleError, match=r"holds no config\.json, so it is not a model folder"):
        shape_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "zorgon"}')
    with pytest.raises(WagleError, match=r"cannot build the model in .*`zorgon`"):
        shape_of(tmp_path)
