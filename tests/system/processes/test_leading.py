"""Rank 0 leads, the others follow: what travels, and how errors and exits are told."""

from __future__ import annotations

import io
import sys
import time

import pytest
import torch

from tests.processes import Ranks
from wagle.system.errors import WagleError
from wagle.system.processes import group, leading
from wagle.system.processes.leading import (
    AnsweredByMain,
    Handed,
    Known,
    ToldToMain,
    Unsendable,
    lead,
    together,
)

DONE: list[object] = []  # what a follower has seen


def test_on_one_process_a_program_just_runs_and_work_is_just_called():
    lead(lambda: DONE.append("ran"))
    assert DONE.pop() == "ran"
    assert together(sorted, [2, 1], reverse=True) == [2, 1]
    assert AnsweredByMain(len)("abc") == 3
    told = []
    ToldToMain(told.append)(3)
    assert told == [3]
    ToldToMain(None)(3)
    held = Handed("x")
    assert (held.take(), held.take()) == ("x", None)


def _led(program, *args):
    """Run a program as a command would; what rank 0 returns, and what the others saw."""
    sys.stderr = io.StringIO()
    found = []

    def run():
        found.append(program(*args))

    try:
        lead(run)
    except SystemExit as end:
        return end.code, list(DONE), sys.stderr.getvalue()
    return 0, found[0], sys.stderr.getvalue()


def _ends(world, program, *args):
    return Ranks(world, _led, program, *args).ends()


def add(tensor, text, told):
    told(text)
    assert AnsweredByMain(_nested)() == 1
    DONE.append((text, group.rank(), group.world()))
    return group.add_up(tensor.clone()).tolist(), together(group.world)


def test_work_is_done_by_all_with_the_arguments_of_the_first():
    for rank, (how, found) in enumerate(_ends(3, _add)):
        assert how == "found"
        code, result, said = found
        assert (code, said) == (0, "")
        if rank == 0:
            assert result == (1, ["hi"], ([3.0, 6.0], 1))  # alone, then all, then alone inside
        else:
            assert result == [("hi", rank, 3)]


def _nested():
    return together(group.world)  # in the middle of common work, it is this process's own


def _add():
    told = []
    world = group.world()
    found = together(add, torch.tensor([1.0, 2.0]), "hi", ToldToMain(told.append))
    return world, told, found


def test_the_others_end_with_the_exit_code_of_the_first():
    assert [found[0] for _, found in _ends(2, _leave)] == [3, 3]


def _leave():
    raise SystemExit(3)


def fail(where, agreed):
    def work():
        if group.rank() in where:
            raise WagleError(f"on {where}")

    group.agreed(work) if agreed else work()
    return group.gather(1)


@pytest.mark.parametrize(("where", "agreed"), [((0, 1), False), ((0,), True), ((1,), True)])
def test_an_error_of_all_leaves_them_ready_for_more(where, agreed):
    (_, first), (_, second) = _ends(2, _fail, where, agreed)
    assert first == (0, [f"on {where}", [1, 1]], "")
    assert second == (0, [], "")


def _fail(where, agreed):
    found = []
    try:
        together(fail, where, agreed)
    except WagleError as error:
        found.append(str(error))
    found.append(together(fail, (), False))
    return found


def test_an_error_of_one_other_process_ends_all_with_its_reason():
    began = time.monotonic()
    ends = _ends(2, _fail_there)
    assert time.monotonic() - began < 30
    assert ends[0][0] == "found"
    assert "another process has ended" in ends[0][1][1]
    assert ends[1] == ("died", 2)


def _fail_there():
    leading._PATIENCE /= 20
    try:
        together(fail, (1,), False)
    except WagleError as error:
        return str(error)
    return None


def meet(known, other):
    DONE.append((known.key, None if known.value is None else known.value.tolist()))
    return other


def test_what_the_others_know_from_the_last_message_does_not_travel_again():
    (_, first), (_, second) = _ends(2, _meet)
    assert first[1][:4] == [True, False, True, True]  # whether the tensor was in the message
    one, two = ("a", [1.0]), ("b", [2.0])
    assert second[1] == [one, one, two, one]


def _meet():
    sizes = []
    pack = leading._Packer

    class Counting(pack):
        def dump(self, what):
            super().dump(what)
            sizes.append(len(self.tensors) > 0)

    leading._Packer = Counting
    for key, value in (("a", 1.0), ("a", 1.0), ("b", 2.0), ("a", 1.0)):
        together(meet, Known(key, torch.tensor([value])), None)
    return sizes


def test_what_cannot_travel_is_refused_before_anybody_begins():
    (_, first), (_, second) = _ends(2, _unsendable)
    assert "cannot be sent to the other processes" in first[1][0]
    assert first[1][1] == [1, 1]
    assert second == (0, [], "")


def _unsendable():
    try:
        together(fail, lambda: None, False)
    except Unsendable as error:
        return str(error), together(fail, (), False)
    return None


def ask(answer):
    return answer(group.rank())


def test_a_function_of_the_first_process_answers_all():
    (_, first), _ = _ends(2, _ask)
    assert first[1] == ("rank 0 of 1", "rank 0 of 1")


def _ask():
    return together(
        ask, AnsweredByMain(lambda rank: f"rank {rank} of {group.world()}")
    ), "rank 0 of 1"
