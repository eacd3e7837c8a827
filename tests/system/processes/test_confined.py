"""Functions called in a process of their own: the same results, and limits that hold."""

import os
import signal
import sys
import threading
import time

import pytest

from wagle.system.processes.confined import Confined, Failed, Limits


@pytest.fixture
def confined():
    made = []

    def make(function, **limits):
        made.append(Confined(function, Limits(**limits)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_results_are_the_functions_own_and_it_runs_elsewhere(confined):
    ask = confined(lambda asked: {"told": asked, "by": os.getpid()})
    first = ask(["å\ud800", 1, None, {"a": [2.5]}])
    assert first["told"] == ["å\ud800", 1, None, {"a": [2.5]}]
    assert first["by"] != os.getpid()
    assert ask("x" * 300_000) == {"told": "x" * 300_000, "by": first["by"]}  # the same process


def test_what_the_function_changes_is_lost_and_what_changed_here_is_seen_after_a_restart(confined):
    seen = [1]

    def grow(_):
        seen.append(2)
        return seen

    ask = confined(grow)
    assert ask(None) == [1, 2]
    assert ask(None) == [1, 2, 2]
    assert seen == [1]
    ask.close()
    seen[0] = 5
    assert ask(None) == [5, 2]


def test_an_exception_comes_back_as_one_line_with_its_kinds(confined):
    def fail(_):
        raise KeyError("first\nsecond")

    with pytest.raises(Failed) as caught:
        confined(fail)(None)
    assert caught.value.reason == "'first\\nsecond'"
    assert caught.value.kinds[:2] == ("KeyError", "LookupError")


def endless(_):
    while True:
        pass


def long_power(_):
    return len(str(2 ** (1 << 34)))  # without a chance to interrupt it


@pytest.mark.parametrize("function", [endless, long_power])
def test_time_is_limited_even_inside_one_operation(confined, function):
    ask = confined(function, seconds=1)
    with pytest.raises(Failed, match=r"longer than 1 seconds|MB of memory"):
        ask(None)


def test_a_call_that_sleeps_is_ended_by_the_clock(confined, monkeypatch):
    monkeypatch.setattr("wagle.system.processes.confined._LONGEST", 0.3)
    start = time.monotonic()
    with pytest.raises(Failed, match="longer than 0 seconds"):
        confined(lambda _: time.sleep(60))(None)
    assert time.monotonic() - start < 5


def test_memory_and_text_are_limited_and_the_next_call_works(confined):
    ask = confined(lambda size: "x" * size if size else "fine", memory=1 << 28, answer=1 << 20)
    with pytest.raises(Failed, match="takes more than 256 MB of memory"):
        ask(5 * 10**9)
    with pytest.raises(Failed, match="makes more than 1 MB of text"):
        ask(1 << 20)
    assert ask(0) == "fine"


def test_a_process_that_ends_in_a_call_is_one_line_and_started_again(confined):
    ask = confined(lambda how: os.kill(os.getpid(), signal.SIGSEGV) if how else "fine")
    with pytest.raises(Failed, match="it ended its process"):
        ask(1)
    assert ask(0) == "fine"


def test_an_idle_process_ends_and_is_started_again(confined):
    ask = confined(lambda _: os.getpid(), idle=0.05)
    first = ask(None)
    time.sleep(0.5)
    assert os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT) is not None  # it has ended
    assert ask(None) != first


def test_no_call_is_lost_however_the_process_goes_idle(confined):
    ask = confined(lambda asked: asked, idle=0.001)
    for number in range(60):
        assert ask(number) == number
        time.sleep(0.001 * (number % 3))


def test_it_writes_no_file_and_holds_none_of_this_process_open(confined, tmp_path):
    (tmp_path / "x").write_text("kept")
    with (tmp_path / "x").open() as held:

        def look(_):
            found = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
            try:
                (tmp_path / "y").write_text("z")
            except OSError as error:
                return [held.name in found, os.strerror(error.errno)]
            return []

        assert confined(look)(None) == [False, "File too large"]
    assert (tmp_path / "y").read_text() == ""


def test_several_threads_may_ask(confined):
    ask, found = confined(lambda asked: asked * 2), []
    threads = [threading.Thread(target=lambda n=n: found.append(ask(n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2 * n for n in range(20)]


def test_a_fork_of_this_process_asks_one_of_its_own(confined):
    ask = confined(lambda asked: asked + 1)
    assert ask(1) == 2
    pid = os.fork()
    if pid == 0:
        try:
            fine = ask(5) == 6
        finally:
            os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert ask(2) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_closing_leaves_no_process_and_no_pipe():
    before = len(os.listdir("/proc/self/fd"))
    ask = Confined(lambda _: os.getpid())
    pid = ask(None)
    ask.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    assert len(os.listdir("/proc/self/fd")) == before
