"""What blocks are given, and what a tensor was computed from."""

import pytest
import torch
from torch import nn

from wagle.attribution.gradients.forward import _reached
from wagle.model.streaming.traces import _tensors, check_given
from wagle.system.errors import WagleError


def test_tensors_are_found_at_every_depth_in_order():
    one, two, three = (torch.tensor(float(i)) for i in range(3))
    given = ([one, "x"], {"mask": None, "pair": (two, {"deep": [three]})}, 4)
    assert [t.item() for t in _tensors(given)] == [0, 1, 2]
    assert list(_tensors("text")) == []


def test_what_depends_on_weights_is_refused_beside_hidden_states():
    class Given(nn.Module):
        pass

    fine = torch.ones(1)
    check_given(Given(), ((), {"mask": fine}))
    with pytest.raises(
        WagleError, match="Given passes its blocks more than hidden states that dep"
    ):
        check_given(Given(), ((), {"mask": [fine.clone().requires_grad_() * 2]}))


def test_the_leaves_of_a_tensor_are_those_that_need_a_gradient_each_once():
    used, twice, idle = (nn.Parameter(torch.ones(2)) for _ in range(3))
    frozen = torch.ones(2)
    output = (used * frozen + twice * twice) * 3
    assert {id(t) for t in _reached(output)} == {id(used), id(twice)}
    assert len(_reached(output)) == 2
    assert idle.grad_fn is None
    assert _reached(frozen * 2) == []
    assert _reached((used * 2).detach()) == []
