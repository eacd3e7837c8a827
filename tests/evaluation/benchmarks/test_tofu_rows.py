"""The records of TOFU: which files they are, how many are taken, and what there is to hold out."""

from __future__ import annotations

import json

import pytest

from wagle.evaluation.benchmarks.tofu.rows import _cut, check_holdout, read_sets
from wagle.system.errors import WagleError

SETS = ("forget10", "retain", "real_authors", "world_facts")


def home(folder, *more, rows=4):
    """A folder with the four files of a split, and others."""
    for name in (*(f"{name}_perturbed" for name in SETS), *more):
        lines = [json.dumps({"question": f"{name} {i}?", "answer": "a"}) for i in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def test_a_set_is_the_first_of_its_file_under_its_own_name(tmp_path):
    found, note = read_sets(home(tmp_path), "forget10", {"forget": 2, "retain": "all"})
    assert {name: len(records) for name, records in found.items()} == {
        "forget": 2,
        "retain": 4,
        "real_authors": 4,
        "world_facts": 4,
    }
    assert [r.place for r in found["forget"]] == ["forget[0]", "forget[1]"]
    assert found["forget"][1].prompt == "forget10_perturbed 1?"
    assert note is None


def test_a_split_has_the_holdout_set_of_its_size_where_the_folder_has_it(tmp_path):
    found, note = read_sets(home(tmp_path, "holdout05"), "forget10", {})
    assert "holdout" not in found
    found, note = read_sets(home(tmp_path, "holdout10"), "forget10", {"holdout": 3})
    assert [r.place for r in found["holdout"]] == [f"holdout[{i}]" for i in range(3)]
    assert note is None


def test_all_files_that_are_missing_are_named_at_once(tmp_path):
    (home(tmp_path) / "world_facts_perturbed.jsonl").unlink()
    said = r"lacks forget05_perturbed, world_facts_perturbed \(\.\w+, .*locuslab/TOFU"
    with pytest.raises(WagleError, match=said):
        read_sets(tmp_path, "forget05", {})


@pytest.mark.parametrize(("limit", "left"), [(None, 3), ("all", 3), (1, 1), (3, 3), (9, 3)])
def test_a_limit_takes_the_first_or_all_that_there_are(limit, left):
    assert _cut([1, 2, 3], limit) == [1, 2, 3][:left]  # type: ignore[list-item]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(WagleError, match=f"rows is {limit}; give a number of records above 0"):
        _cut([], limit)


@pytest.mark.parametrize(
    ("split", "named"),
    [("forget10", "no holdout10 for forget10"), ("authors", "no holdout split for authors")],
)
def test_attacks_without_a_holdout_set_name_the_split_that_is_not_there(split, named):
    check_holdout({"holdout": [1]}, "data", split)  # type: ignore[list-item]
    for found in ({}, {"holdout": []}):
        with pytest.raises(WagleError, match=named):
            check_holdout(found, "data", split)
