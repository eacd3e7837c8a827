import pytest

from wagle.system.kept import Kept


def test_a_result_is_made_once_and_again_after_it_was_let_go():
    kept, made = Kept(5, len), []

    def ask(text):
        return kept.get(text, lambda: made.append(text) or text.upper())

    assert [ask(text) for text in ("ab", "cde", "ab")] == ["AB", "CDE", "AB"]
    assert made == ["ab", "cde"]
    ask("f")  # one too many: all are let go
    ask("f")
    ask("ab")
    assert made == ["ab", "cde", "f", "ab"]


def test_what_is_larger_than_the_room_is_made_every_time():
    kept, made = Kept(2, len), []
    for _ in range(2):
        assert kept.get("long", lambda: made.append(1) or "long") == "long"
    assert made == [1, 1]


def test_an_error_is_not_kept():
    kept, made = Kept(9, len), ["second"]

    def make():
        if made:
            raise ValueError(made.pop())
        return "now"

    with pytest.raises(ValueError, match="second"):
        kept.get("key", make)
    assert kept.get("key", make) == "now"
