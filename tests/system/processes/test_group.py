"""What processes tell one another; on one, everything is as if there were no others."""

from __future__ import annotations

import os

import pytest
import torch

from tests.processes import Ranks, on
from wagle.system.errors import TrainingStopped, WagleError
from wagle.system.processes import group


def test_one_process_is_alone():
    assert (group.rank(), group.world(), group.main_process(), group.several()) == (
        0,
        1,
        True,
        False,
    )
    assert group.gather("a") == ["a"]
    assert group.from_main(3) == 3
    assert group.share([1, 2, 3]) == [1, 2, 3]
    tensor = torch.ones(3)
    assert group.add_up(tensor) is tensor
    assert group.to_main(tensor, [3]) is tensor
    with pytest.raises(WagleError, match="no"):
        group.agreed(_no)


def _no():
    raise WagleError("no")


def test_what_several_tell_one_another():
    for rank, found in enumerate(on(3, _talk)):
        assert found["gathered"] == [0, 10, 20]
        assert found["first"] == "from 0"
        assert found["sum"] == [3.0, 6.0]
        assert found["many"] == [[3.0] * 5, [6.0] * (1 << 21), [9.0]]
        assert found["spread"] == [1.0, 1.0]
        assert found["turns"] == [[0.0], [10.0, 11.0], [20.0, 21.0], [22.0]]
        assert found["share"] == [rank, rank + 3, rank + 6][: 3 if rank < 1 else 2]
        assert found["alone"] == (0, 1)
        assert found["back"] == (rank, 3)
        assert found["joined"] == ([0.0, 1.0, 1.0, 2.0, 2.0, 2.0] if rank == 0 else None)
        assert found["error"] == ("TrainingStopped", "lost at 7 on 1", 7, True)


def _talk():
    me = group.rank()
    many = [torch.full((5,), float(me)), torch.full((1 << 21,), 2.0), torch.full((1,), 3.0)]
    group.add_up_all(many)
    joined = group.to_main(torch.full((me + 1,), float(me)), [1, 2, 3])
    turns = group.in_turn(torch.arange(me + 1.0) + 10 * me, 2)
    with group.alone():
        alone = (group.rank(), group.world())
    return {
        "gathered": group.gather(10 * me),
        "first": group.from_main(f"from {me}"),
        "sum": group.add_up(torch.tensor([1.0, 2.0])).tolist(),
        "many": [tensor.tolist() for tensor in many],
        "spread": group.spread(torch.full((2,), float(me)), owner=1).tolist(),
        "turns": [piece.tolist() for piece in turns],
        "share": list(group.share(range(7))),
        "alone": alone,
        "back": (group.rank(), group.world()),
        "joined": None if joined is None else joined.tolist(),
        "error": _failed(),
    }


def _failed():
    def work():
        if group.rank() == 1:
            raise TrainingStopped(f"lost at 7 on {group.rank()}", 7)

    try:
        group.agreed(work)
    except TrainingStopped as error:
        return type(error).__name__, str(error), error.step, error.everywhere
    return None


def test_libraries_do_not_see_the_others():
    for seen, after in on(2, _hide):
        assert seen == (None, None, "cpu")
        assert after == ("2", None)


def _hide():
    with group.unseen():
        names = ("WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_TORCH_DEVICE")
        seen = tuple(os.environ.get(name) for name in names)
        assert group.world() == 2
    return seen, (os.environ["WORLD_SIZE"], os.environ.get("ACCELERATE_TORCH_DEVICE"))


def test_the_loss_of_a_process_is_one_line():
    ends = Ranks(3, _die).ends(30)
    assert ends[1] == ("died", 7)
    assert [how for how, _ in (ends[0], ends[2])] == ["found", "found"]
    assert "another process has ended" in ends[0][1]


def _die():
    group.wait()
    if group.rank() == 1:
        os._exit(7)
    try:
        group.gather(1)
    except group.Lost as error:
        return str(error)
    return "nothing"
