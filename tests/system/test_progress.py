"""The progress bar: silent off a terminal, and its count whole however large its items are."""

import io
import os
import signal
import sys
import threading

import pytest

from wagle.system import progress
from wagle.system.errors import Stopped
from wagle.system.progress import (
    Bar,
    asked_to_stop,
    exit_code_of,
    finishing,
    heed_signals,
    main_process,
    stop_if_asked,
    track,
)


class Terminal(io.StringIO):
    """A stream that passes for a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes stderr a terminal: in the test, since pytest puts its own there before each."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def make():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return make


@pytest.mark.parametrize(
    ("rank", "speaks"), [(None, True), ("0", True), ("1", False), ("10", False)]
)
def test_rank_0_speaks_to_the_user(monkeypatch, rank, speaks):
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    assert main_process() is speaks


def test_off_a_terminal_a_bar_writes_nothing(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    with Bar("gradients", 3) as bar:
        bar.advance(2, loss=0.5)
    assert capsys.readouterr() == ("", "")


def test_another_process_than_the_main_one_writes_nothing(terminal, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    stream = terminal()
    with Bar("gradients", 3) as bar:
        bar.advance()
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal_shows_its_count_and_the_last_figures(terminal):
    stream = terminal()
    with Bar("gradients", 12) as bar:
        bar.advance(4, loss=0.123456, share=2.0)
        bar.advance(1)  # the figures stay
        task = bar._progress.tasks[0]
        assert (task.completed, task.total) == (5, 12)
        assert task.fields["figures"] == "loss 0.1235  share 2"
    shown = stream.getvalue()
    assert "gradients" in shown
    assert "5/12" in shown
    assert "loss 0.1235  share 2" in shown


def test_a_bar_stops_after_an_error_and_lets_it_out(terminal):
    stream, bar = terminal(), Bar("gradients", 2)
    with pytest.raises(ZeroDivisionError), bar:
        raise ZeroDivisionError
    assert not bar._progress.live.is_started
    assert "0/2" in stream.getvalue()


class Counting(Bar):
    """Notes what it is told, in order."""

    def __init__(self, what, total):
        super().__init__(what, total)
        log.append((what, total))

    def advance(self, steps=1, **figures):
        log.append(steps)
        assert not figures


log: list = []


@pytest.fixture
def counted(monkeypatch):
    log.clear()
    monkeypatch.setattr(progress, "Bar", Counting)
    return log


def test_items_come_in_order_and_count_for_their_size_once_they_are_done(counted):
    seen = []
    for item in track(["a", "bbb", ""], "records", size=len):
        seen.append((item, list(counted[1:])))
    assert seen == [("a", []), ("bbb", [1]), ("", [1, 3])]
    assert counted == [("records", 4), 1, 3, 0]


def test_without_a_size_every_item_is_one_and_of_nothing_comes_nothing(counted):
    assert list(track([5, 7], "records")) == [5, 7]
    assert counted == [("records", 2), 1, 1]
    assert list(track([], "records")) == []
    assert counted[-1] == ("records", 0)


def test_an_item_at_which_the_loop_is_left_does_not_count(counted):
    for item in track([1, 2, 3], "records"):
        if item == 2:
            break
    assert counted == [("records", 3), 1]


# ----- signals -----

TERM, HUP = signal.SIGTERM, signal.SIGHUP


@pytest.fixture
def heeding(monkeypatch):
    """A process that heeds signals."""
    before = {number: signal.getsignal(number) for number in (TERM, HUP)}
    monkeypatch.setattr(progress, "_asked", [])
    for number in before:  # under nohup, the tests ignore them too
        signal.signal(number, signal.SIG_DFL)
    heed_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask(number=TERM):
    os.kill(os.getpid(), number)


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize("number", [TERM, HUP])
def test_outside_a_step_a_signal_ends_at_once(number):
    stop_if_asked()
    assert asked_to_stop() is None
    with pytest.raises(Stopped) as end:
        ask(number)
    assert asked_to_stop() == number
    assert exit_code_of(end.value) == 128 + number
    with pytest.raises(Stopped):  # it is not forgotten where somebody swallowed the exception
        stop_if_asked()


def take_steps(done):
    for step in range(3):
        with finishing():
            with finishing():  # a loop within a step
                if step == 1:
                    ask()
                done.append((step, "inner"))
            done.append((step, "outer"))


@pytest.mark.usefixtures("heeding")
def test_a_step_is_finished_first_with_all_that_is_in_it():
    done = []
    with pytest.raises(Stopped):
        take_steps(done)
    assert done == [(0, "inner"), (0, "outer"), (1, "inner"), (1, "outer")]


def go_through(items, done):
    for item in track(items, "items"):
        if item == 2:
            ask()
        done.append(item)


@pytest.mark.usefixtures("heeding")
def test_a_loop_ends_after_the_item_in_which_it_was_asked_to():
    done = []
    with pytest.raises(Stopped):
        go_through([1, 2, 3], done)
    assert done == [1, 2]


def break_off(items):
    for item in track(items, "items"):
        if item == 1:
            raise ValueError(item)


@pytest.mark.usefixtures("heeding")
def test_an_error_in_a_step_comes_first_and_leaves_no_step_open():
    with pytest.raises(ValueError, match="1"):
        break_off([1, 2])
    with pytest.raises(ZeroDivisionError), finishing():
        ask() or 1 / 0
    with pytest.raises(Stopped):
        ask()


@pytest.mark.usefixtures("heeding")
def test_an_interruption_waits_for_no_step():
    with pytest.raises(KeyboardInterrupt) as end, finishing():
        ask(signal.SIGINT)
    assert exit_code_of(end.value) == 130
    assert exit_code_of(SystemExit(130)) == 130  # typer makes this of it
    assert [exit_code_of(SystemExit(code)) for code in (0, 1, 2, None)] == [0, 1, 2, None]


def test_signals_that_are_ignored_stay_so_and_other_threads_leave_them_alone():
    before = signal.signal(HUP, signal.SIG_IGN), signal.getsignal(TERM)
    try:
        thread = threading.Thread(target=heed_signals)
        thread.start()
        thread.join()
        assert signal.getsignal(TERM) == before[1]
        heed_signals()
        assert signal.getsignal(HUP) == signal.SIG_IGN
    finally:
        signal.signal(HUP, before[0])
        signal.signal(TERM, before[1])
