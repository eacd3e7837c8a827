"""What wagle needs from torch beyond its public names. Tested with torch 2.13.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PYTREE_LOGGER = "torch.utils._pytree"
"""The logger that warns when torchao registers its types; users can do nothing about it.

Source: https://github.com/pytorch/pytorch/blob/main/torch/utils/_pytree.py
"""


def leaf_of(node: Any) -> Tensor | None:
    """The leaf at a gradient-accumulating node of an autograd graph; None at any other node.

    The documented way, ``torch.autograd.graph.get_gradient_edge``, only goes from leaf to node.
    Source: https://github.com/pytorch/pytorch/blob/main/torch/csrc/autograd/python_function.cpp,
    ``AccumulateGrad.variable``.
    """
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf
