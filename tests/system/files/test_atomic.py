"""Folders that resume, the room on a disk, and JSON: what `test_files.py` does not go through."""

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest

from wagle.system.errors import DiskFull, WagleError
from wagle.system.files import atomic
from wagle.system.files.atomic import (
    append_line,
    atomic_file,
    atomic_folder,
    check_space,
    disk_errors,
    locked,
    resumable_folder,
    write_json,
    write_text,
)
from wagle.system.files.reading import read_json


class Killed(BaseException):
    """What no handler of errors sees, like a kill."""


def write_and_raise(path, error):
    """Get as far as one file."""
    path.write_text("done")
    raise error("enough")


def cut_short(folder, plan, error):
    """Work in a resumable folder that ends by ``error`` after one file."""
    with pytest.raises(error), resumable_folder(folder, plan) as part:
        write_and_raise(part / "first", error)


def found_by(folder, plan):
    """The files that work under ``plan`` finds when it starts, finished at once."""
    with resumable_folder(folder, plan) as part:
        return sorted(p.name for p in part.iterdir() if p.name != "plan.json")


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_what_an_interruption_left_is_there_again_under_the_same_plan(tmp_path, error):
    out = tmp_path / "store"
    cut_short(out, {"records": (1, 2)}, error)
    assert not out.exists()
    assert found_by(out, {"records": [1, 2]}) == ["first"]  # as JSON writes it, a tuple is a list
    assert sorted(p.name for p in out.iterdir()) == ["first"]  # without the plan
    assert not (tmp_path / "store.part").exists()


def test_what_was_left_under_another_plan_is_removed(tmp_path):
    cut_short(tmp_path / "store", {"seed": 1}, Killed)
    assert found_by(tmp_path / "store", {"seed": 2}) == []
    assert list((tmp_path / "store").iterdir()) == []


def test_an_error_removes_what_was_begun(tmp_path):
    cut_short(tmp_path / "store", {}, ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "store"
    with resumable_folder(out, {"seed": 1}) as part:
        (part / "old").write_text("1")
    with resumable_folder(out, {"seed": 2}) as part:
        assert (out / "old").read_text() == "1"  # still whole while the new one is made
        (part / "new").write_text("2")
    assert [p.name for p in out.iterdir()] == ["new"]


def test_left_overs_without_a_plan_are_no_start(tmp_path):
    (tmp_path / "store.part").mkdir()
    (tmp_path / "store.part" / "stray").write_text("x")
    assert found_by(tmp_path / "store", {}) == []


def test_files_of_a_new_folder_have_the_mode_of_the_umask_at_every_depth(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "m") as part:
            (part / "deep").mkdir()
            (part / "deep" / "file").write_text("x")
            os.chmod(part / "deep" / "file", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "m" / "deep" / "file").stat().st_mode & 0o777 == 0o640


def test_asking_for_the_umask_leaves_it_as_it_is():
    before = os.umask(0o031)
    try:
        assert atomic._umask() == 0o031
        assert atomic._umask() == 0o031
    finally:
        os.umask(before)


def test_missing_folders_are_made_and_a_failure_leaves_no_part(tmp_path):
    write_text(tmp_path / "a" / "b" / "file", "ä\n")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == "ä\n".encode()
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a" / "file") as part:
        part.write_text(str(1 // 0))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_a_failure_keeps_the_file_that_was_there(tmp_path):
    write_text(tmp_path / "file", "old")
    with pytest.raises(KeyError), atomic_file(tmp_path / "file") as part:
        write_and_raise(part, KeyError)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


# ---------------------------------------------------------------------------------------------
# Errors


def test_an_error_that_is_not_of_the_disk_passes_as_it_is(tmp_path):
    for error in (ValueError("no"), WagleError("said"), DiskFull("full")):
        with pytest.raises(type(error)) as caught, disk_errors(tmp_path):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("filename", "where"), [(None, ""), ("out/x", ""), ("out/x.part", r" \(out/x\.part\)")]
)
def test_a_refusal_names_the_other_file_where_it_is_another(filename, where):
    error = OSError(13, "Permission denied", filename)
    with (
        pytest.raises(
            WagleError, match=rf"^cannot write out/x: Permission denied{where}$"
        ) as found,
        disk_errors(Path("out/x")),
    ):
        raise error
    assert not isinstance(found.value, DiskFull)
    assert found.value.__cause__ is error


def free_bytes(monkeypatch, free):
    """A disk with so much left; returns the places that it was asked about."""
    asked = []
    usage = namedtuple("usage", "total used free")

    def disk_usage(path):
        asked.append(path)
        return usage(10**12, 0, free)

    monkeypatch.setattr(atomic.shutil, "disk_usage", disk_usage)
    return asked


def test_what_fits_to_the_byte_is_let_through_and_one_more_is_refused(tmp_path, monkeypatch):
    asked = free_bytes(monkeypatch, 2_500_000_000)
    check_space(tmp_path, 2_500_000_000, "a store", "choose another place")
    assert asked == [tmp_path]
    with pytest.raises(WagleError) as caught:
        check_space(tmp_path / "not" / "there", 2_500_000_001, "a store", "choose another place")
    assert str(caught.value) == (
        f"a store needs 2.50 GB, but {tmp_path} has 2.50 GB left; free some space or choose "
        "another place"
    )
    assert asked[1] == tmp_path  # the nearest folder that exists


def test_the_nearest_place_of_a_relative_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert atomic._existing(Path("no/such/folder")) == tmp_path
    assert atomic._existing(Path()) == tmp_path


def test_a_full_disk_says_how_much_is_left_of_the_disk_that_it_is_on(tmp_path, monkeypatch):
    asked = free_bytes(monkeypatch, 12_345_678)
    with (
        pytest.raises(DiskFull, match=r"the disk is full \(0\.01 GB left\) while writing .*/a/b;"),
        disk_errors(tmp_path / "a" / "b"),
    ):
        raise RuntimeError("safetensors: I/O error: No space left on device")
    assert asked == [tmp_path]


# ---------------------------------------------------------------------------------------------
# JSON


def test_json_is_indented_utf_8_with_a_line_break_at_its_end(tmp_path):
    write_json(tmp_path / "x.json", {"name": "Honoré", "of": [1]})
    assert (tmp_path / "x.json").read_bytes() == (
        '{\n  "name": "Honoré",\n  "of": [\n    1\n  ]\n}\n'.encode()
    )
    assert read_json(tmp_path / "x.json") == {"name": "Honoré", "of": [1]}


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "x.json", {"p": float("inf")})
    assert read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"[1] 2"])
def test_json_that_is_broken_is_one_line_with_its_path(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(WagleError, match=r"x\.json is not valid JSON \(.+\)$") as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_json_that_is_missing_is_named(tmp_path):
    with pytest.raises(WagleError, match=r"x\.json does not exist$"):
        read_json(tmp_path / "x.json")


def test_lines_are_appended_and_each_is_one_line(tmp_path):
    path = tmp_path / "log.jsonl"
    values = [{"text": "two\nlines \u2028 ß"}, {}, None]
    for value in values:
        append_line(path, value)
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == values
    assert lines[-1] == b""
    assert "ß".encode() in lines[0]


def test_a_line_where_nothing_can_be_written_is_a_one_line_error(tmp_path):
    with pytest.raises(WagleError, match=r"cannot write .*log\.jsonl: No such file or directory$"):
        append_line(tmp_path / "no" / "log.jsonl", {})


def test_a_lock_makes_its_folder_and_may_be_taken_again_after_its_release(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "new" / "run"):
            assert (tmp_path / "new" / "run" / ".lock").is_file()
