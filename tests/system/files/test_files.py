import errno
import os
import subprocess
import sys

import pytest
import torch

from wagle.system.errors import WagleError, choose
from wagle.system.files import atomic as files
from wagle.system.files.atomic import atomic_file, atomic_folder, locked, write_json
from wagle.system.files.checked import load_checked, save_checked
from wagle.system.files.secrets import keyed_digest, private_folder, salt
from wagle.system.files.tensors import TensorFile


def _fail(part, text):
    part.write_text(text)
    raise ValueError("stop")


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "file"
    with pytest.raises(ValueError, match="stop"), atomic_file(path) as part:
        _fail(part, "half")
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as part:
        part.write_text("whole")
    with pytest.raises(ValueError, match="stop"), atomic_file(path) as part:
        _fail(part, "other half")
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_folder_is_whole_or_absent_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "folder"
    for name in ("a", "b"):
        with atomic_folder(path) as part:
            (part / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["b"]
    with pytest.raises(ValueError, match="stop"), atomic_folder(path) as part:
        _fail(part / "c", "c")
    assert [p.name for p in path.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_modes_follow_the_umask_and_private_files_are_private_from_their_first_byte(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "open") as part:
            part.write_text("x")
        with atomic_file(tmp_path / "secret", private=True) as part:
            assert part.stat().st_mode & 0o777 == 0o600
            part.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert private_folder(tmp_path / "private").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(
            'SafetensorError: IoError(Os { code: 28, message: "No space left on device" })'
        ),
    ],
)
def test_a_full_disk_says_so_in_one_line_and_keeps_nothing(tmp_path, monkeypatch, error):
    def full(path):
        del path
        raise error

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(
        WagleError, match=r"the disk is full .* while writing .*x; nothing was kept"
    ):
        write_json(tmp_path / "x", {})
    assert list(tmp_path.iterdir()) == []


def test_a_refused_write_names_the_reason(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WagleError, match="cannot write"):
        write_json(tmp_path / "file" / "y", {})


def test_json_never_holds_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_checked_file_comes_back_and_notices_every_flipped_byte(tmp_path):
    path = tmp_path / "f"
    tensors = {"a": torch.arange(5), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_checked(path, tensors, {"n": 1, "x": [0.5]}, "wagle-thing/1")
    got, metadata = load_checked(path, "thing", "wagle-thing/1")
    assert metadata == {"n": 1, "x": [0.5]}
    assert all(torch.equal(got[n], t) for n, t in tensors.items())
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(WagleError):
            load_checked(path, "thing", "wagle-thing/1")


def test_a_newer_and_a_foreign_format_are_refused_by_name(tmp_path):
    save_checked(tmp_path / "f", {}, {}, "wagle-thing/2")
    with pytest.raises(
        WagleError, match="has format wagle-thing/2; this wagle reads wagle-thing/1"
    ):
        load_checked(tmp_path / "f", "thing", "wagle-thing/1")
    with pytest.raises(WagleError, match="is not a wagle mask"):
        load_checked(tmp_path / "f", "mask", "wagle-mask/1")
    (tmp_path / "g").write_bytes(b"hello")
    with pytest.raises(WagleError, match="truncated or corrupt"):
        TensorFile(tmp_path / "g")


LOCK = """
import sys
from pathlib import Path
from wagle.system.files.atomic import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    if sys.argv[2:]:
        sys.stdin.read()
"""


def test_a_lock_is_held_against_other_processes_and_released(tmp_path):
    command = [sys.executable, "-c", LOCK, str(tmp_path)]
    with locked(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True)
        assert "another wagle process is working in" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "in\n"


def test_a_lock_is_held_against_its_own_process_too_and_only_its_owner_may_read_it(tmp_path):
    folder = tmp_path / "new"
    with locked(folder), pytest.raises(WagleError) as told, locked(folder):
        pass
    assert str(told.value) == (
        f"another wagle process is working in {folder}; wait for it or choose another --out"
    )
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert (folder / ".lock").stat().st_mode & 0o777 == 0o600
    with locked(folder):
        pass


def test_a_killed_process_leaves_its_lock(tmp_path):
    command = [sys.executable, "-c", LOCK, str(tmp_path), "stay"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(WagleError, match="another wagle process"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
        with locked(tmp_path):
            pass


def test_an_error_of_the_work_in_a_lock_comes_out_as_it_is(tmp_path):
    with pytest.raises(OSError, match="of the work"), locked(tmp_path):
        raise OSError(errno.EIO, "of the work")
    with locked(tmp_path):
        pass


def test_digests_of_records_need_the_salt(tmp_path):
    key = salt(tmp_path)
    assert salt(tmp_path) == key
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    one = keyed_digest(key, ["a", "b"])
    assert one == keyed_digest(key, ["a", "b"])
    assert one != keyed_digest(key, ["ab"])
    assert one != keyed_digest(salt(tmp_path / "other"), ["a", "b"])


def test_choose_names_the_nearest_and_all_known():
    with pytest.raises(
        WagleError, match=r"unknown score 'wagel'; did you mean 'wagle'\? \(known: random, wagle\)"
    ):
        choose({"wagle": 1, "random": 2}, "wagel", "score")
    with pytest.raises(WagleError, match=r"unknown score 'xyz' \(known: random, wagle\)"):
        choose({"wagle": 1, "random": 2}, "xyz", "score")


def test_metadata_that_is_no_json_is_a_one_line_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "f", metadata={"wagle": "{"})
    with pytest.raises(WagleError, match="its metadata cannot be read"):
        TensorFile(tmp_path / "f", "mask")
