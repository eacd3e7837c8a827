"""The tasks of lm-eval: which data sets they read, where copies stand, and what is missing."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from wagle.evaluation.harness.loading import (
    _data_sets,
    _home,
    _missing,
    _source,
    _take_copies,
    quiet,
)


@dataclass(frozen=True)
class Entry:
    """An entry of the library's index: what its file says (None of a tag), and where it stands."""

    cfg: dict[str, Any] | None
    yaml_path: Path | None = None
    tags: set[str] = field(default_factory=set)


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_the_library_is_quiet_for_as_long_as_it_is_asked_even_after_an_error():
    own = logging.getLogger("lm_eval")
    level, seen = own.level, []

    def fail():
        seen.append(own.level)
        raise KeyError

    with pytest.raises(KeyError), quiet():
        fail()
    assert (seen, own.level) == ([logging.ERROR], level)


# ----- which data sets -----

INDEX = {
    "one": Entry({"dataset_path": "who/one"}),
    "local": Entry({"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "x"}}}),
    "none": Entry({"task": "none"}),
    "group": Entry({"group": "group", "task": ["one", {"task": "two"}, {"group": "inner"}]}),
    "two": Entry({"dataset_path": "who/two", "dataset_kwargs": None}),
    "inner": Entry({"group": "inner", "task": ["one", "missing"]}),
    "tag": Entry(None, tags={"two", "local"}),
}


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("one", {"who/one"}),
        ("local", set()),  # its files are named: there is nothing to fetch
        ("none", set()),
        ("two", {"who/two"}),
        ("group", {"who/one", "who/two"}),
        ("inner", {"who/one"}),
        ("tag", {"who/two"}),
        ("missing", set()),
    ],
)
def test_a_task_names_its_data_set_and_a_group_or_a_tag_those_of_its_members(name, sets):
    assert _data_sets(INDEX, name) == sets


# ----- where copies stand -----


@pytest.mark.parametrize("home", ["who/set", "set"])
def test_a_copy_stands_under_its_whole_name_or_its_last_part(tmp_path, home):
    files(tmp_path, f"{home}/test/data.parquet")
    assert _home(tmp_path, "who/set") == tmp_path / home


def test_the_folder_itself_may_be_the_copy(tmp_path):
    folder = files(tmp_path / "set", "test.jsonl")
    assert _home(folder, "who/set") == folder
    assert _home(files(tmp_path / "other", "test.jsonl"), "who/set") is None


def test_a_folder_without_a_file_of_data_is_no_copy(tmp_path):
    files(tmp_path, "set/README.md")
    assert _home(tmp_path, "who/set") is None


def test_the_files_of_a_configuration_are_given_by_split(tmp_path):
    files(
        tmp_path, "bio/test.jsonl", "bio/dev-00000-of-00002.jsonl", "bio/dev-00001-of-00002.jsonl"
    )
    found = _source(tmp_path, "bio")
    assert (found["dataset_path"], found["dataset_name"]) == ("json", None)
    assert found["dataset_kwargs"]["data_files"] == {
        "dev": [str(tmp_path / f"bio/dev-0000{i}-of-00002.jsonl") for i in range(2)],
        "test": [str(tmp_path / "bio/test.jsonl")],
    }


@pytest.mark.parametrize("config", [None, "bio"])
def test_without_files_of_the_configuration_the_folder_is_given_as_it_is(tmp_path, config):
    files(tmp_path, "bio/README.md", "test.csv")
    assert _source(tmp_path, config) == {"dataset_path": str(tmp_path), "dataset_name": config}


def test_a_task_whose_data_is_there_reads_it_and_the_others_stay(tmp_path):
    data, made = files(tmp_path / "data", "one/sub/test.csv"), tmp_path / "made"
    made.mkdir()
    cfg = {"dataset_path": "who/one", "dataset_name": "sub"}
    index = {
        "mine": Entry(cfg, Path("mine.yaml")),
        "other": Entry({"dataset_path": "who/two"}, Path("other.yaml")),
        "python": Entry(cfg),  # of no file
        "group": Entry({"group": "group", "task": ["mine"]}, Path("group.yaml")),
    }
    before = dict(index)
    _take_copies(index, data, made)
    assert {name for name in index if index[name] is not before[name]} == {"mine"}
    copied = index["mine"].yaml_path
    assert copied is not None
    assert copied.parent == made
    assert yaml.safe_load(copied.read_text()) == {
        "include": "mine.yaml",
        "task": "mine",
        "dataset_path": "csv",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": [str(data / "one/sub/test.csv")]}},
    }


# ----- what is missing -----


def test_a_task_without_a_data_set_says_why_it_cannot_be_loaded():
    assert _missing("mine", [], None, "no metric") == (
        "the lm-eval task mine cannot be loaded: no metric"
    )


def test_a_copy_that_is_there_is_said_to_be_of_no_use(tmp_path):
    files(tmp_path, "one/test.csv")
    said = _missing("mine", ["who/one"], tmp_path, "bad split")
    assert said == (
        f"mine needs the data set who/one, but the copy in {tmp_path} cannot be used: bad split"
    )


def test_a_copy_that_is_not_there_is_asked_for_by_its_place(tmp_path):
    files(tmp_path, "one/test.csv")
    said = _missing("mine", ["who/one", "who/two"], tmp_path, "offline")
    assert f"there is no copy at {tmp_path / 'one'}, {tmp_path / 'two'}" in said
    assert "give data=FOLDER with a copy at FOLDER/one" in _missing("mine", ["who/one"], None, "x")
