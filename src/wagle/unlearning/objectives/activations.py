"""Activations: objectives on the output of a block, and the vectors that they steer it towards.

Each function is a forget term, (B_f,) float32, or the retain term that goes with one, (B_r,).
To add one: a function here, its entry in ACTIVATIONS, and a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wagle.data.draws import uniform
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.shapes import Hidden

DIRECTIONS = ("random", "contrast")


def rmu(
    forget_hidden: Hidden,
    control: Tensor,
    *,
    layer: int = 7,
    steering: float = 20.0,
    direction: str = "random",
    novice: str = "",
    expert: str = "",
    topics: Sequence[str] = (),
) -> Tensor:
    """Representation misdirection: steer a block's output on the forget set to a fixed vector.

    Mean over a record's real positions, prompt included, of ``|h - control|^2 / d``. Only the
    ``mlp.down_proj`` of the three blocks up to ``layer`` train, unless a mask says otherwise.

    Args:
        forget_hidden: the output of block ``layer`` for B_f records; (m, d) float32.
        control: (B_f, d) float32, each record's control vector, fixed for the run.
        layer: the block, from 0.
        steering: >= 0, the length of the control vectors. Published: 20; 6.5 for zephyr-7b.
        direction: of the control vectors: ``random``, or ``contrast`` of two prompts.
        novice: for ``contrast``: the prompt to steer towards; ``{topic}`` stands for the topic.
        expert: for ``contrast``: the prompt to steer away from.
        topics: for ``contrast``: what replaces ``{topic}``, one name for each source of the forget
            set, in order. Every source has its own control vector.

    Source: Li et al. 2024 (WMDP), arXiv 2403.03218, RMU; ``contrast`` is what ``CUT`` in the code
    of arXiv 2410.17509 set out to do.
    """
    del layer, steering, direction, novice, expert, topics  # used in making the inputs
    return _mean_square(forget_hidden, control.repeat_interleave(forget_hidden.length, 0))  # (m, d)


def rmu_retain(retain_hidden: Hidden, retain_hidden_ref: Hidden) -> Tensor:
    """Keep the block's output: mean over a record's real positions of ``|h - h_ref|^2 / d``.

    Args:
        retain_hidden: the output of ``rmu``'s block for B_r records; (m, d) float32.
        retain_hidden_ref: the same under the original model, no gradient.
    """
    return _mean_square(retain_hidden, retain_hidden_ref.states)


def rmu_trains(settings: Mapping[str, Any]) -> list[str]:
    """Patterns of the parameters that ``rmu`` trains, in block ``layer`` and the two before it."""
    last = settings["layer"]
    return [f"*.{block}.mlp.down_proj.weight" for block in range(max(last - 2, 0), last + 1)]


def check_rmu(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings of ``rmu``, or None."""
    direction = settings["direction"]
    if direction not in DIRECTIONS:
        return f"direction is {direction!r}; give one of {', '.join(DIRECTIONS)}"
    missing = [name for name in ("novice", "expert") if not settings[name]]
    if direction == "contrast" and missing:
        return f"direction contrast needs the prompt {missing[0]}; add it to the settings"
    return None


def random_control(seed: int, topic: int, size: int, *, steering: float) -> Tensor:
    """A control vector in a random direction: ``steering * u / |u|``, u uniform in [0, 1)^d.

    Args:
        seed: of the run.
        topic: the number of the forget topic.
        size: d, the width of the model.
        steering: its length.

    Returns:
        (d,) float32 on the CPU, a pure function of the arguments.

    Source: Li et al. 2024 (WMDP), arXiv 2403.03218.
    """
    generator = torch.Generator().manual_seed(int(uniform("control", seed, topic) * 2.0**53))
    draw = torch.rand(size, generator=generator)
    return draw.mul_(steering / draw.norm())


def contrast_control(novice: Tensor, expert: Tensor, *, steering: float) -> Tensor:
    """A control vector from the expert's activation to the novice's, of length ``steering``.

    Args:
        novice: (d,) float32, the block's output at the last token of a prompt that speaks as
            someone who does not know the topic.
        expert: the same for a prompt that speaks as someone who does.
        steering: its length.

    Returns:
        (d,) float32.

    Raises:
        WagleError: the two are equal, so there is no direction.
    """
    gap = novice - expert
    length = float(gap.norm())
    if length == 0:
        raise WagleError(
            "the novice and the expert prompts give the same activation; use prompts that differ at "
            "their end"
        )
    return gap * (steering / length)


def _mean_square(hidden: Hidden, aim: Tensor) -> Tensor:
    """Mean over a record's positions of ``|h - aim|^2 / d``: (B,)."""
    return hidden.mean_per_record((hidden.states - aim).square().mean(-1))


ACTIVATIONS: dict[str, Objective] = {
    "rmu": Objective(
        rmu,
        retain="own",
        own=rmu_retain,
        retain_weight=100.0,
        trains=rmu_trains,
        check=check_rmu,
    ),
}
