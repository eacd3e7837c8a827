"""Plug-ins: what may be named, what may run, and what a broken one says."""

import pickle
import sys
from importlib.metadata import EntryPoint
from inspect import signature
from typing import get_type_hints

import pytest

from wagle.system import plugins
from wagle.system.errors import WagleError
from wagle.system.plugins import code_allowed, find, is_path

CODE = '''
class Entry:
    def __init__(self):
        self.name = "entry"

ENTRY = 5

def double(number: int, *, times: int = 2) -> int:
    """Twice the number."""
    return number * times

def broken(number):
    raise ValueError("no number\\nat all")
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "of_others.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "of_others"
    sys.modules.pop("of_others", None)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a:b", True),
        ("a.b:c", True),
        ("wagle", False),
        ("a:", False),
        (":b", False),
        ("a:b.c", False),
        ("C:/x", False),
        ("a b:c", False),
    ],
)
def test_a_path_is_a_module_and_a_function(name, found):
    assert is_path(name) is found


def test_code_in_the_current_folder_runs_only_where_it_may(module):
    with pytest.raises(WagleError, match=r"of_others:double is code outside wagle.*allow_code: tr"):
        find({}, f"{module}:double", "objective")
    assert module not in sys.modules
    with code_allowed(yes=True):
        assert find({}, f"{module}:double", "objective")(4) == 8
    with pytest.raises(WagleError, match="allow-code"):
        find({}, f"{module}:double", "objective")


def test_a_function_of_others_looks_like_itself(module):
    with code_allowed(yes=True):
        double = find({}, f"{module}:double", "objective")
        assert list(signature(double).parameters) == ["number", "times"]
        assert get_type_hints(double)["times"] is int
        assert double.__doc__ == "Twice the number."
        assert pickle.loads(pickle.dumps(double))(3, times=3) == 9  # noqa: S301
        assert find({}, f"{module}:ENTRY", "objective") == 5


def test_what_goes_wrong_in_it_is_one_line_that_names_it(module):
    with code_allowed(yes=True):
        broken = find({}, f"{module}:broken", "score")
        with pytest.raises(
            WagleError, match=r"^the score of_others:broken failed: ValueError: no number$"
        ):
            broken(1)
        with pytest.raises(WagleError, match=r"has no dubble; did you mean of_others:double\?"):
            find({}, f"{module}:dubble", "score")
        with pytest.raises(WagleError, match="the attack nowhere:x failed: ModuleNotFoundError"):
            find({}, "nowhere:x", "attack")


def test_installed_plugins_need_no_permission_and_never_shadow_a_member(monkeypatch):
    points = [
        EntryPoint("ours", "json:dumps", "wagle.scores"),
        EntryPoint("theirs", "json:loads", "wagle.scores"),
        EntryPoint("gone", "json:nothing", "wagle.scores"),
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: points if group == "wagle.scores" else []
    )
    assert find({"ours": 1}, "ours", "score") == 1
    assert find({"ours": 1}, "theirs", "score")("[2]") == [2]
    with pytest.raises(WagleError, match="the score gone of json failed: AttributeError"):
        find({}, "gone", "score")
    with pytest.raises(WagleError, match="unknown score 'thiers'; did you mean 'theirs'"):
        find({"ours": 1}, "thiers", "score")
    with pytest.raises(WagleError, match="unknown attack 'theirs'"):
        find({"ours": 1}, "theirs", "attack")
