"""What wagle needs from bitsandbytes beyond its public names. Tested with bitsandbytes 0.50.2."""

from __future__ import annotations

from typing import Any


def never_repack(layer: Any) -> None:
    """Keep the weight of a four-bit layer packed as it is; any other module is left alone.

    On processors with AVX512-BF16 the first forward pass in evaluation mode repacks it: its bits
    change, gradients no longer pass through it, and it computes in another precision. No setting
    turns that off.
    Source: https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/nn/modules.py,
    ``Linear4bit``.
    """
    if hasattr(layer, "support_avx512bf16_for_cpu"):
        layer.support_avx512bf16_for_cpu = False
