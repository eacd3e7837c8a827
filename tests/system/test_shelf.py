"""A table whose members are files: names from the folder, nothing imported before it is taken."""

import sys

import pytest

from wagle.system.errors import WagleError, choose
from wagle.system.shelf import Shelf


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    folder = tmp_path / "larder"
    (folder / "jam").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "jam" / "__init__.py").write_text("from larder.jam.cooking import jam as jam\n")
    (folder / "jam" / "cooking.py").write_text("def jam(fruit):\n    return f'{fruit} jam'\n")
    (folder / "bread.py").write_text("def bread():\n    return 'bread'\n")
    (folder / "broken.py").write_text("raise RuntimeError('imported')\n")
    (folder / "notes.txt").write_text("no member")
    monkeypatch.syspath_prepend(tmp_path)
    yield Shelf("larder")
    for name in [name for name in sys.modules if name.partition(".")[0] == "larder"]:
        del sys.modules[name]


def test_a_file_and_a_package_are_members_by_their_names(shelf):
    assert list(shelf) == ["bread", "broken", "jam"]
    assert len(shelf) == 3
    assert shelf["bread"]() == "bread"
    assert shelf["jam"]("plum") == "plum jam"


def test_a_new_file_is_a_member_at_once(shelf, tmp_path):
    (tmp_path / "larder" / "honey.py").write_text("def honey():\n    return 'honey'\n")
    assert shelf["honey"]() == "honey"


def test_nothing_is_imported_before_it_is_taken(shelf):
    assert "broken" in shelf
    assert set(shelf) == {"bread", "broken", "jam"}
    assert shelf["bread"]() == "bread"
    assert {name for name in sys.modules if name.startswith("larder.")} == {"larder.bread"}
    with pytest.raises(RuntimeError, match="imported"):
        shelf["broken"]


def test_what_is_no_member_is_a_key_error_and_for_the_user_one_line(shelf):
    for name in ("notes", "__init__", "cooking"):
        assert name not in shelf
        with pytest.raises(KeyError):
            shelf[name]
    with pytest.raises(WagleError, match="unknown food 'bred'; did you mean 'bread'"):
        choose(shelf, "bred", "food")
