"""The structure of a model: places, blocks, dropout, the head, and tensors held for a while."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import FAMILIES, make_model
from wagle.model.structure import (
    check_length,
    find_blocks,
    head_at,
    model_folder,
    place,
    place_parameters,
    placed,
    precision,
    to_device,
    without_dropout,
)
from wagle.system.errors import WagleError


def made_of(depth, **modules):
    """A module with a configuration of so many layers."""
    found = nn.Module()
    config = SimpleNamespace(num_hidden_layers=depth)
    found.config = SimpleNamespace(get_text_config=lambda **_: config)
    for name, module in modules.items():
        found.add_module(name, module)
    return found


def some(count):
    return nn.ModuleList(nn.Linear(2, 2) for _ in range(count))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_blocks_of_a_model_are_its_one_list_of_layers(family):
    model = make_model(family)
    name, blocks = find_blocks(model)
    assert len(blocks) == 2
    assert model.get_submodule(name) is blocks
    stems = {n.split(f"{name}.")[1][0] for n, _ in model.named_parameters() if n.startswith(name)}
    assert stems == {"0", "1"}


def test_a_list_inside_a_block_is_not_taken_for_the_blocks():
    outer = nn.ModuleList(nn.Sequential() for _ in range(3))
    for block in outer:
        block.add_module("experts", some(3))
    model = made_of(3, few=some(2), layers=outer)
    assert find_blocks(model)[0] == "layers"
    assert find_blocks(model)[1] is outer


def test_a_list_whose_name_only_begins_alike_is_another_list():
    model = made_of(3, layers=some(3), layers2=some(3))
    with pytest.raises(
        WagleError, match=r"cannot find the blocks of Module \(one list of 3 modules"
    ):
        find_blocks(model)


@pytest.mark.parametrize("depth", [4, None])
def test_a_model_without_such_a_list_is_refused(depth):
    with pytest.raises(WagleError, match=f"blocks of Module \\(one list of {depth} modules\\)"):
        find_blocks(made_of(depth, layers=some(3)))


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("layers.10.weight", ("10", "weight")),
        ("a.1.b.2.c", ("1", "b.2.c")),
        ("model.layers2.norm.weight", ("", "model.layers2.norm.weight")),
        ("0.weight", ("", "0.weight")),  # no list has a name before it
        ("layers.3", ("", "layers.3")),
        ("", ("", "")),
    ],
)
def test_a_place_is_the_first_number_between_two_names(name, where):
    assert place(name) == where


def test_a_folder_is_a_model_folder_where_it_has_a_config(tmp_path):
    with pytest.raises(WagleError, match=r"model folder .*/no does not exist; give the path to a"):
        model_folder(tmp_path / "no")
    with pytest.raises(WagleError, match=r"holds no config\.json, so it is not a model folder"):
        model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert model_folder(str(tmp_path)) == tmp_path
    with pytest.raises(WagleError, match=r"config\.json does not exist"):
        model_folder(tmp_path / "config.json")  # a file is no folder


def test_a_record_may_fill_the_positions_and_no_more():
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=7))
    check_length(model, 7, "forget[2]")
    with pytest.raises(
        WagleError, match=r"^forget\[2\] needs 8 tokens, but the model has 7 positions;"
    ):
        check_length(model, 8, "forget[2]")
    check_length(SimpleNamespace(config=SimpleNamespace()), 10**9, "forget[2]")


# ---------------------------------------------------------------------------------------------
# Dropout, precision, head


class Attention(nn.Module):
    """Dropout of every sort, in the attributes where libraries keep it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout(0.25)
        self.more = nn.Dropout1d(0.375)
        self.attention_dropout = 0.5
        self.dropout = nn.Dropout(0.125)
        self.layerdrop = 0.75
        self.dropout_rate = 1  # a whole number is no rate


def rates(module):
    return [
        *(module.inner.p, module.more.p, module.attention_dropout, module.dropout.p),
        *(module.layerdrop, module.dropout_rate),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_every_rate_is_zero_inside_and_what_it_was_afterwards_even_after_an_error(training):
    module = Attention().train(training)
    before = rates(module)
    with without_dropout(module):
        assert rates(module) == [0.0] * 5 + [1]
        assert module.training is training
    assert rates(module) == before
    with pytest.raises(ZeroDivisionError), without_dropout(module):
        raise ZeroDivisionError
    assert rates(module) == before


def test_dropout_may_be_left_out_twice_over():
    module = Attention()
    before = rates(module)
    with without_dropout(module):
        with without_dropout(module):
            pass
        assert rates(module)[:5] == [0.0] * 5
    assert rates(module) == before


def test_products_are_in_the_precision_that_is_asked_for_and_weights_stay():
    one = torch.ones(2, 2)
    with precision(one.device, "bfloat16"):
        assert (one @ one).dtype == torch.bfloat16
        with precision(one.device, "float32"):
            assert (one @ one).dtype == torch.float32
    assert (one @ one).dtype == one.dtype == torch.float32
    with pytest.raises(WagleError, match=r"precision 'float16'"), precision(one.device, "float16"):
        pass


def test_only_the_kept_positions_reach_the_head_and_their_logits_are_the_same():
    model = make_model("llama-untied")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    keep = torch.tensor([[False, True, False], [True, False, True]])
    whole = model(ids).logits
    with head_at(model, keep):
        found = model(ids).logits
    assert found.shape == (1, 3, 400)
    torch.testing.assert_close(found[0], whole[keep], rtol=1e-5, atol=1e-6)  # in row order
    assert model(ids).logits.shape == whole.shape  # the hook is gone
    with pytest.raises(ZeroDivisionError), head_at(model, keep):
        raise ZeroDivisionError
    assert model(ids).logits.shape == whole.shape


def test_a_wrapped_model_has_the_head_of_what_it_wraps_and_one_without_is_refused():
    inner = make_model("gpt2")
    wrapper = nn.Module()
    wrapper.module = inner
    ids, keep = torch.tensor([[5, 6]]), torch.tensor([[False, True]])
    with head_at(wrapper, keep):
        assert inner(ids).logits.shape == (1, 1, 400)
    inner.get_output_embeddings = lambda: None
    with pytest.raises(WagleError, match="GPT2LMHeadModel has no output embedding; is it a causal"):
        head_at(inner, keep).__enter__()


def test_only_the_tensors_of_a_batch_move():
    batch = {"ids": torch.ones(2), "name": "x", "places": [1]}
    moved = to_device(batch, torch.device("meta"))
    assert moved["ids"].device.type == "meta"
    assert (moved["name"], moved["places"]) == ("x", [1])
    assert batch["ids"].device.type == "cpu"


# ---------------------------------------------------------------------------------------------
# Parameters in other parameters' places


def tied():
    model = nn.Module()
    model.first, model.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    model.second.weight = model.first.weight
    model.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    return model


def test_a_tensor_takes_every_place_of_a_tied_parameter():
    model = tied()
    place_parameters(model, {"first.weight": torch.ones(2, 2)})
    assert model.first.weight is model.second.weight
    assert model.first.weight.requires_grad
    assert [n for n, _ in model.named_parameters()] == ["frozen", "first.weight"]
    given = nn.Parameter(torch.ones(3), requires_grad=False)
    place_parameters(model, {"frozen": given})
    assert model.frozen is given  # a parameter stays the one it is
    with pytest.raises(KeyError):  # the second place has no name of its own
        place_parameters(model, {"second.weight": torch.ones(2, 2)})


def test_two_places_in_one_module_are_both_taken():
    model = nn.Module()
    model.one = nn.Parameter(torch.zeros(2))
    model.two = model.one
    place_parameters(model, {"one": torch.ones(2)})
    assert model.one is model.two
    assert model.two.tolist() == [1, 1]


def test_held_tensors_make_room_again_even_after_an_error():
    model = tied()
    before = model.first.weight
    new = torch.full((2, 2), 7.0)
    with pytest.raises(ZeroDivisionError), placed(model, {"first.weight": new}) as found:
        check_and_fail(model, found, new)
    assert model.first.weight is model.second.weight is before
    with placed(model, {}) as found:
        assert found == {}


def check_and_fail(model, found, new):
    assert set(found) == {"first.weight"}
    assert found["first.weight"] is model.second.weight
    assert found["first.weight"].data_ptr() == new.data_ptr()  # no copy
    raise ZeroDivisionError
