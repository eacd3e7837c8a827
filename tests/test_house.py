"""The script that counts the house: what it counts, and that its examples still have their places."""

import ast
import json
from pathlib import Path

import pytest
from bench.house import counts
from bench.house.__main__ import Row, as_markdown, main, quick_rows
from bench.house.additions import ADDITIONS, ATTACK, Addition, Edit, New
from bench.house.trying import NoPlace, add, changed_files, copy_repository, try_addition

ROOT = Path(__file__).parents[1]


def write(root, **files):
    """Files by dotted path, ``a.b`` for ``a/b.py``, in packages."""
    for name, text in files.items():
        path = root.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents:
            if folder != Path():
                (root / folder / "__init__.py").touch()
    return root


def function(name, lines, told=0):
    """A function of so many lines, and a docstring of others."""
    docstring = ['    """Says.', *["    more"] * (told - 2), '    """'] if told else []
    return "\n".join([f"def {name}():", *docstring, *["    x = 1"] * (lines - 1)]) + "\n"


# ---------------------------------------------------------------------------------------------
# Counting


def test_a_room_is_a_package_or_a_module_of_the_top_level(tmp_path):
    write(tmp_path, **{"a.x": "", "b": "", "__init__": "", "__main__": ""})
    (tmp_path / "recipes").mkdir()  # data
    assert counts.rooms(tmp_path) == ["a", "b"]


def test_every_room_is_on_a_floor():
    floors = counts.floors(ROOT)
    on_floors = [room for floor in floors for room in floor]
    old = ["adapters"]  # a deprecated name
    assert sorted([*on_floors, *old]) == counts.rooms(ROOT / "src" / "wagle")
    assert floors[0] == ["cli"]


def test_contracts_are_told_by_name():
    found = counts.contracts(ROOT)
    assert len(found) == 2
    assert any(name.startswith("No circle") for name in found)


def test_a_package_whose_parts_import_one_another_is_a_circle(tmp_path):
    write(
        tmp_path,
        **{"round.a": "from round import b\n", "round.b": "def f():\n    import round.a\n"},
        **{"round.deep.c": "import round.deep.d\n", "round.deep.d": "import round.deep.c\n"},
        **{"round.fine.e": "import round.fine.f\n", "round.fine.f": ""},
    )
    assert counts.circles(tmp_path / "round") == ["round", "round.deep"]


def test_files_over_the_limit_are_named_but_for_those_that_are_data(tmp_path):
    long = "x = 1\n" * 351
    write(tmp_path, **{"data": long, "code": long + "def f(): ...\n", "short": "def f(): ...\n"})
    assert counts.long_files(tmp_path) == [("code.py", 352)]


@pytest.mark.parametrize(("lines", "told", "found"), [(50, 0, 0), (51, 0, 1), (50, 9, 0)])
def test_a_function_is_counted_without_its_docstring(tmp_path, lines, told, found):
    text = function("f", lines, told)
    write(tmp_path, a=text)
    assert counts.body_lines(ast.parse(text).body[0]) == lines
    assert counts.long_functions(tmp_path) == [("a.py: f", lines)] * found


def test_a_folder_with_more_than_12_modules_is_full(tmp_path):
    write(tmp_path, **{f"one.m{i}": "" for i in range(12)}, **{f"two.m{i}": "" for i in range(13)})
    write(tmp_path, **{"one.deep.m": ""})
    assert counts.full_folders(tmp_path) == [("two", 13)]


def test_what_is_public_has_no_underscore_in_any_of_its_names(tmp_path):
    write(
        tmp_path,
        a='''
def told():
    """Says."""
    def within(): ...

def untold(): ...
def _private(): ...

class Told:
    """Says."""
    def __init__(self): ...
    @property
    def silent(self): ...

class _Private:
    def method(self): ...
''',
        _hidden="def f(): ...\n",
    )
    found = counts.documented(tmp_path)
    assert (found.count, found.without) == (4, ["a.py: untold", "a.py: Told.silent"])
    assert found.percent == 50


def test_lines_are_those_of_python_files(tmp_path):
    write(tmp_path, **{"a": "1\n2\n", "b.c": "3\n"})
    (tmp_path / "notes.txt").write_text("4\n")
    assert counts.lines_of(tmp_path) == 3


# ---------------------------------------------------------------------------------------------
# Adding


def small_repository(home):
    write(home / "src", **{"wagle.table": "TABLE = {\n    'old': 1,\n}\n"})
    write(home / "tests", **{"kinds.test_old": "def test_old(): ...\n"})
    (home / "docs").mkdir()
    (home / "pyproject.toml").write_text("")
    return home


TABLE = "src/wagle/table.py"
ENTRY = Edit(TABLE, "    'old'", "    'new': 2,\n")
TEST = New(
    "tests/kinds/test_new.py",
    "from wagle.table import TABLE\n\n\ndef test_new():\n    assert TABLE['new'] == 2\n",
)


def test_what_an_addition_touches_is_what_differs_afterwards(tmp_path):
    root, copy = small_repository(tmp_path / "root"), tmp_path / "copy"
    copy_repository(root, copy)
    assert changed_files(root, copy) == []
    add(copy, [ENTRY, TEST])
    assert (copy / TABLE).read_text() == "TABLE = {\n    'new': 2,\n    'old': 1,\n}\n"
    assert changed_files(root, copy) == [TABLE, TEST.path]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Edit(TABLE, "'none'", ""), "says \"'none'\" 0 times"),
        (Edit("src/wagle/nowhere.py", "x", ""), "says 'x' 0 times"),
        (New(TABLE, ""), "is there already"),
        (New("src/wagle/kinds/new.py", ""), "src/wagle/kinds is no package"),
    ],
)
def test_an_example_without_its_place_is_told(tmp_path, step, message):
    root = small_repository(tmp_path)
    with pytest.raises(NoPlace, match=message):
        add(root, [step])


@pytest.mark.parametrize(("steps", "problem"), [([ENTRY, TEST], ""), ([TEST], "KeyError: 'new'")])
def test_an_addition_counts_only_where_its_test_passes(tmp_path, steps, problem):
    root = small_repository(tmp_path)
    found = try_addition(root, Addition("kind", 2, "new", steps, [["tests/kinds"]]))
    assert problem in found.problem
    assert bool(found.problem) is bool(problem)
    assert len(found.files) == len(steps)
    assert changed_files(root, root) == []


@pytest.mark.parametrize(
    "addition",
    ADDITIONS,
    ids=[one.kind for one in ADDITIONS],
)
def test_every_example_has_its_place_and_touches_as_few_files_as_it_may(tmp_path, addition):
    copy = tmp_path / "copy"
    copy_repository(ROOT, copy)
    add(copy, addition.steps)
    touched = changed_files(ROOT, copy)
    assert len(touched) <= addition.most
    assert [path.partition("/")[0] for path in touched].count("tests") == 1


# ---------------------------------------------------------------------------------------------
# The table


def test_a_row_names_the_places_that_miss():
    row = Row("files", 7, "<= 0", False, list("abcdefg"))
    assert row.text().split() == ["files", "7", "<=", "0", "MISS", *"abcde", "and", "2", "more"]
    assert Row("rooms", 2, "<= 3", True, ["a"]).text().split() == ["rooms", "2", "<=", "3", "ok"]


def test_the_quick_table_has_a_row_for_everything_that_is_counted():
    rows = list(quick_rows(ROOT))
    assert len(rows) == 9
    for row in rows[:2]:
        assert row.ok


def test_the_table_is_written_and_the_exit_code_says_whether_a_limit_is_missed(tmp_path, capsys):
    rows = list(quick_rows(ROOT))
    with pytest.raises(SystemExit) as left:
        main(["--quick", "--root", str(ROOT), "--json", str(tmp_path / "house.json")])
    assert left.value.code == (0 if all(row.ok for row in rows) else 1)
    assert json.loads((tmp_path / "house.json").read_text()) == [r._asdict() for r in rows]
    assert capsys.readouterr().out == "".join(f"{row.text()}\n" for row in rows)


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--kinds", "atack"])
    assert "unknown kind 'atack'" in capsys.readouterr().err


def test_examples_are_shown_file_by_file(capsys):
    main(["--examples"])
    page = capsys.readouterr().out
    assert page == as_markdown(ADDITIONS) + "\n"
    for step in ATTACK.steps:
        assert f"`{step.path}`, a new file:\n\n```python\n{step.text.rstrip()}\n```" in page
