"""What wagle needs of torch beyond its public names. Tested with torch 2.13.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PYTREE_LOGGER = "torch.utils._pytree"
"""The logger that warns when torchao registers its types, which no user can change.

Source: https://github.com/pytorch/pytorch/blob/main/torch/utils/_pytree.py
"""


def leaf_of(node: Any) -> Tensor | None:
    """The leaf at a node of an autograd graph, where gradients are accumulated; None at any other.

    The documented way, ``torch.autograd.graph.get_gradient_edge``, goes from a leaf to its node only.
    Source: https://github.com/pytorch/pytorch/blob/main/torch/csrc/autograd/python_function.cpp,
    ``AccumulateGrad.variable``.
    """
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf
