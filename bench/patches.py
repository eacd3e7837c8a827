"""What patches cost: their size, and the time and memory of extract, apply and undo.

The weights of a random mask differ from the base in their last bit: the size of a patch depends
on where weights changed, not on by how much. Nothing is trained.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.lines import Line, at_most
from bench.measure import Memory, timed
from bench.setup import Setup
from wagle.model.loading import load_model
from wagle.model.saving import save_model
from wagle.model.weights import weight_files
from wagle.patch.application import apply, undo
from wagle.patch.extraction import extract
from wagle.patch.folders import stored_bits

RATIOS = (0.05, 0.2, 0.8)
BYTES = {"float32": 4, "bfloat16": 2}  # per weight
_SLACK = 0.002  # a random mask's ratio is not exact; names, shapes and digests
_WORKS = ("make", "extract", "apply", "undo")


def _folder(setup: Setup, dtype: str, name: str) -> Path:
    return setup.at("small", "patches", dtype, name)


def make(setup: Setup, dtype: str, ratio: float) -> dict[str, Any]:
    """The base in a dtype, made if needed, and a copy with random weights' last bit flipped."""
    base, result = _folder(setup, dtype, "base"), _folder(setup, dtype, "result")
    model = load_model(setup.model, dtype=dtype)
    if not base.exists():
        model.save_pretrained(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            chosen = torch.rand(parameter.numel(), generator=generator) < ratio
            bits = stored_bits(parameter.detach())
            bits[chosen] = bits[chosen] ^ 1
    save_model(model, base, result)
    return {"model_bytes": sum(file.stat().st_size for file in weight_files(base))}


def run(setup: Setup, dtype: str, work: str) -> dict[str, Any]:
    """One of extract, apply and undo: seconds, peak memory, and the bytes of the patch."""
    base, result, out = (_folder(setup, dtype, name) for name in ("base", "result", "out"))
    patch, back = (_folder(setup, dtype, name) for name in ("patch", "undo"))
    works: dict[str, Callable[[], object]] = {
        "extract": lambda: extract(base, result, patch, undo=back),
        "apply": lambda: apply(base, patch, out),
        "undo": lambda: undo(result, back, out),
    }
    with Memory() as memory:
        _, seconds = timed(works[work])
    shutil.rmtree(out, ignore_errors=True)
    return {"seconds": seconds, "patch_bytes": patch.stat().st_size, **memory.figures()}


def _name(work: str, dtype: str, ratio: float) -> str:
    return f"patch_{work}_{dtype}_{ratio}"


MEASURES: dict[str, Callable[[Setup], dict[str, Any]]] = {
    _name(work, dtype, ratio): (
        partial(make, dtype=dtype, ratio=ratio)
        if work == "make"
        else partial(run, dtype=dtype, work=work)
    )
    for dtype in BYTES
    for ratio in RATIOS
    for work in _WORKS
}


def entropy(ratio: float) -> float:
    """The entropy of random positions, in bits per weight."""
    return -ratio * math.log2(ratio) - (1 - ratio) * math.log2(1 - ratio)


def lines(known: Mapping[str, Mapping[str, Any]]) -> Sequence[Line]:
    """Per dtype and ratio: the share of the model's bytes with its bound, seconds and memory."""
    found = []
    for dtype, each in BYTES.items():
        for ratio in RATIOS:
            size = known[_name("make", dtype, ratio)]["model_bytes"]
            share = known[_name("extract", dtype, ratio)]["patch_bytes"] / size
            limit = ratio + 1.03 * entropy(ratio) / 8 / each + _SLACK
            what = f"{dtype}, ratio {ratio}"
            why = "values + 1.03 x entropy"
            found.append(at_most("patches", f"{what}: patch over model", share, "", limit, why))
            for work in _WORKS[1:]:
                cost = known[_name(work, dtype, ratio)]
                found += [
                    Line("patches", f"  {work}", cost["seconds"], "s"),
                    Line("patches", f"  {work}: peak memory (VmHWM)", cost["peak_gb"], "GB"),
                    Line("patches", "    of it without file pages", cost["anonymous_gb"], "GB"),
                ]
    return found
