"""Seals: which files are digested, how, and how an edited one is noticed."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest

from wagle.system.files import seals
from wagle.system.files.seals import content_digest, is_intact, large_stamps, seal, sealable, stamp


@pytest.fixture
def folder(tmp_path):
    for name in ("a.json", "model/w.safetensors", "model/deep/t.json", "model/.lock", "b.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "salt").write_text("0a" * 32 + "\n")
    (tmp_path / "private" / "answers.json").write_text("Who?")
    return tmp_path


def test_names_are_files_patterns_and_whole_folders_without_what_is_hidden(folder):
    assert sealable(folder, ["model/", "*.json", "none.json"]) == [
        "a.json",
        "model/deep/t.json",
        "model/w.safetensors",
    ]
    assert sealable(folder, ["b.part"]) == []


def test_private_files_are_sealed_only_by_name(folder):
    (folder / "arm" / "private").mkdir(parents=True)
    (folder / "arm" / "private" / "salt").touch()
    assert sealable(folder, ["*/*.json", "arm/"]) == []
    assert sealable(folder, ["private/*.json"]) == ["private/answers.json"]


def test_a_digest_is_sha256_and_that_of_a_private_file_is_keyed(folder):
    found = seal(folder, ["a.json", "private/answers.json"])
    assert found["a.json"] == hashlib.sha256(b"a.json").hexdigest()
    key = bytes.fromhex("0a" * 32)
    assert found["private/answers.json"] == hmac.new(key, b"Who?", "sha256").hexdigest()


def test_an_edited_or_missing_file_is_not_intact(folder):
    digest = seal(folder, ["a.json"])["a.json"]
    assert is_intact(folder, "a.json", digest)
    (folder / "a.json").write_text("b.json")
    assert not is_intact(folder, "a.json", digest)
    (folder / "a.json").unlink()
    assert not is_intact(folder, "a.json", digest)


def test_a_large_file_is_known_by_its_stamp_and_hashed_when_that_differs(folder, monkeypatch):
    monkeypatch.setattr(seals, "LARGE", 10)
    names = ["a.json", "model/w.safetensors"]
    told, made = large_stamps(folder, names), seal(folder, names)
    name = "model/w.safetensors"
    assert told == {name: stamp(folder / name)}
    path = folder / name
    times = path.stat()
    path.write_text("model/W.safetensors")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert is_intact(folder, name, made[name], told[name])  # the stamp is all a quick look sees
    assert not is_intact(folder, name, made[name])
    path.write_text(name)
    os.utime(path, ns=(0, 0))  # as after a copy
    assert is_intact(folder, name, made[name], told[name])


def test_the_digest_of_content_is_that_of_what_is_read_back():
    assert content_digest({"b": (1, 2), "a": {10: 1, 2: 0}}) == content_digest(
        {"a": {"2": 0, "10": 1}, "b": [1, 2]}
    )
    assert content_digest({"a": 1}) != content_digest({"a": 2})
