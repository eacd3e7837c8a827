"""What wagle needs from torchao beyond its public names. Tested with torchao 0.18.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def codes_and_steps(weight: Any) -> tuple[Tensor, Tensor]:
    """The integer codes and step sizes as which ``quantize_`` stores a weight.

    The public method, ``dequantize``, gives only their product.
    Source: https://github.com/pytorch/ao/tree/main/torchao/quantization/quantize_/workflows,
    ``Int8Tensor`` and ``IntxUnpackedToInt8Tensor``.

    Args:
        weight: (out, in), quantised with int8 or int4 weights.

    Returns:
        (out, in) int8 and (out, groups per row).
    """
    return weight.qdata, weight.scale
