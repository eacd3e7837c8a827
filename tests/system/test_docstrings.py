"""What a docstring says, for the pages that are made from it."""

from wagle.system.docstrings import settings_table, told


def example(scene, *, data, count: int = 3, names=("a", "b"), word: str = "x", none: str = ""):
    """Do ``something``.

    And more,
    in two lines.

    Args:
        scene: hidden.
        data: the file: ``a.json``.
        count: how many, in
            two lines.
        names: of these.
        word: one.
        none: another.

    Returns:
        Nothing.

    Source: A 2024,
    arXiv 1.
    """


def test_a_docstring_falls_into_summary_settings_and_source():
    found = told(example)
    assert found.summary == "Do `something`.\n\nAnd more, in two lines."
    assert found.settings["data"] == "the file: `a.json`."
    assert found.settings["count"] == "how many, in two lines."
    assert list(found.settings) == ["scene", "data", "count", "names", "word", "none"]
    assert found.source == "A 2024, arXiv 1."


def test_without_a_docstring_nothing_is_told():
    assert told(lambda: None).summary == told(lambda: None).source == ""


def test_every_setting_has_a_row_with_its_default():
    assert settings_table(example, hidden=("scene",))[2:] == [
        "| `data` | required | The file: `a.json`. |",
        "| `count` | `3` | How many, in two lines. |",
        '| `names` | `["a", "b"]` | Of these. |',
        "| `word` | `x` | One. |",
        "| `none` | empty | Another. |",
    ]
