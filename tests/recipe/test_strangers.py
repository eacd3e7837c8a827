"""Recipes that a stranger may have made: every one is refused in one line, and soon."""

import os
import time

import pytest

from wagle.recipe.reading import load_recipe
from wagle.recipe.sections.base import Named, Section
from wagle.system.errors import WagleError

HEAD = "name: a\nmodel: demo\n"
LONG = "a" * 5000


def refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(WagleError) as caught:
        load_recipe(path)
    said = str(caught.value).replace(str(path), "FILE")
    assert "\n" not in said
    assert len(said) < 1200
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD.encode("utf-16"), "FILE is not UTF-8 text (byte 0xff at 0); save it as UTF-8"),
        (HEAD.encode("utf-16-be"), "FILE is not valid YAML (special characters are not allowed)"),
        (HEAD + "x: é".encode("latin-1").decode("latin-1"), "FILE: x is not a setting"),
        (HEAD.encode() + b"x: \xe9", "FILE is not UTF-8 text (byte 0xe9 at 23); save it as UTF-8"),
        (b"", "FILE is empty; a recipe needs at least name and model"),
        (
            HEAD + 'system: "\\udc00"',
            "FILE, line 3, is not valid YAML (it holds half of a surrogate pair, which is not a "
            "character)",
        ),
        (
            HEAD + "seed: 0x" + "f" * 5000,
            "FILE, line 3, is not valid YAML (a number has 5,002 characters)",
        ),
        (HEAD + "seed: 0x" + "f" * 40, "FILE: seed is "),
        (HEAD + "seed: " + "9" * 90, "FILE: seed is "),
        (HEAD + "unlearning: {max_steps: " + "9" * 90, "FILE, line 3, is not valid YAML"),
        (HEAD + "evaluation: {records: " + "9" * 90 + "}", "FILE: evaluation.records is 9999"),
        (f"name: a\nmodel: {LONG}", "FILE: model.path is 'aaaa"),
        (f"name: a\nmodel: {'a/' * 2500}", "FILE: model.path is 'a/a/"),
        (f"name: {LONG}\nmodel: demo", "FILE: name is 'aaaa"),
        (f"{HEAD}after: {LONG}", "FILE: after is 'aaaa"),
        (f"{HEAD}forget: {LONG}", "FILE: forget.source is 'aaaa"),
        (f"{HEAD}forget: {{source: [x, {LONG}]}}", "FILE: forget.source is 'aaaa"),
        (f"{HEAD}forget: {{source: x, rows: '{LONG}'}}", "FILE: forget.rows is 'aaaa"),
        (f"{HEAD}forget: {{source: x, rows: '{'9' * 5000}:'}}", "FILE: forget.rows is '9999"),
        (f"{HEAD}forget: {{source: x, take: '{'9' * 5000}'}}", "FILE: forget.take is '9999"),
        (f"{HEAD}attribution: {{mask: {LONG}}}", "FILE: attribution.mask is 'aaaa"),
        (f"{HEAD}attribution: {{score: {{complement: {LONG}}}}}", "FILE: attribution.score is 'a"),
        ('name: a\nmodel: "a\\0b"', "FILE: model.path is 'a\\x00b'; no name or path has a zero"),
        (f"{HEAD}{LONG}: 1", "FILE, line 3, is not valid YAML (could not find expected"),
        (f"{HEAD}? {LONG}\n: 1", "FILE: aaaa"),
    ],
)
def test_what_no_recipe_holds_is_refused_in_one_line(tmp_path, content, said):
    assert refused(tmp_path, content).startswith(said)


@pytest.mark.parametrize(
    "content",
    [
        HEAD + "\n".join(f"k{i}: 1" for i in range(20_000)),
        HEAD + f"attacks: [{'x, ' * 40_000}]",
        HEAD + f"deploy: [{'{}, ' * 20_000}]",
        "[" * 250_000,
        "- " * 120_000,
    ],
)
def test_a_large_one_is_refused_within_seconds(tmp_path, content):
    started = time.process_time()
    refused(tmp_path, content)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_only_a_file_is_read(tmp_path, kind):
    path = tmp_path / "recipe.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(WagleError, match=r"is a pipe or a device|is larger than the 1,048,576 byt"):
        load_recipe(path)


def test_a_path_that_is_too_long_is_no_recipe():
    with pytest.raises(WagleError, match=r"^cannot read aaa.+\.\.\.: File name too long$"):
        load_recipe(LONG)


def test_names_and_whole_numbers_up_to_the_limits_are_taken():
    path = "/".join(["é" * 100] * 12)
    recipe = load_recipe({"name": "a" * 200, "model": path, "forget": {"source": [path, path]}})
    assert recipe.model.path == path


def test_a_whole_number_of_any_section_is_below_two_to_the_63():
    class Counted(Section):
        n: int = 0

    assert Counted(n=2**63 - 1).n == 2**63 - 1
    with pytest.raises(ValueError, match="should be less than 9223372036854776000"):
        Counted(n=2**63)
    assert Named(name="a", settings={"n": 2**70}).settings == {"n": 2**70}
