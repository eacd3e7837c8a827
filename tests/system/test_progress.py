"""The progress bar: silent off a terminal, and its count whole however large its items are."""

import io
import sys

import pytest

from wagle.system import progress
from wagle.system.progress import Bar, main_process, track


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
