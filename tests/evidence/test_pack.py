"""Packs on disk: what they must hold, and that nothing else is in them."""

import hashlib
import shutil
import subprocess
import zipfile

import pytest

from wagle.evidence.pack import (
    MANIFEST,
    check_manifest,
    json_of,
    manifest_of,
    read_pack,
    root_digest,
    write_pack,
)
from wagle.system.errors import Refused, WagleError


def test_a_folder_and_a_zip_hold_the_same_and_equal_packs_are_equal_bytes(home, tmp_path):
    files = read_pack(home / "pack")
    write_pack(files, tmp_path / "one.zip")
    write_pack(dict(reversed(files.items())), tmp_path / "two.zip")
    assert read_pack(tmp_path / "one.zip") == files
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with pytest.raises(WagleError, match="never replaced"):
        write_pack(files, tmp_path / "one.zip")


def test_the_root_is_what_sha256sum_prints_of_the_sorted_files(home):
    files = read_pack(home / "pack")
    names = sorted(set(files) - {MANIFEST, "signature.json"})
    done = subprocess.run(["sha256sum", *names], cwd=home / "pack", capture_output=True, check=True)
    assert manifest_of(files)["root"] == hashlib.sha256(done.stdout).hexdigest()
    assert check_manifest(files) == manifest_of(files)["root"]
    assert root_digest({}) == hashlib.sha256(b"").hexdigest()


def test_a_changed_file_a_changed_list_and_a_changed_root_are_refused(home):
    files = read_pack(home / "pack")
    with pytest.raises(Refused, match=r"CLAIM\.md is not the file that the manifest lists"):
        check_manifest({**files, "CLAIM.md": files["CLAIM.md"] + b" "})
    told = json_of(files, MANIFEST)
    for wrong in (b"[]", b"{}", b'{"schema": "wagle-evidence/9", "files": {}}'):
        with pytest.raises(Refused, match="not a manifest"):
            check_manifest({**files, MANIFEST: wrong})
    text = files[MANIFEST].replace(told["root"].encode(), b"0" * 64)
    with pytest.raises(Refused, match="the root in the manifest"):
        check_manifest({**files, MANIFEST: text})


@pytest.mark.parametrize("name", ["probes.json", "evaluation/../x.json", "run.py", "nonce"])
def test_a_file_that_is_no_part_of_a_pack_is_refused(home, tmp_path, name):
    files = {**read_pack(home / "pack"), name: b"{}"}
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for one, data in files.items():
            archive.writestr(one, data)
    with pytest.raises(Refused, match="is not a part of a pack"):
        read_pack(tmp_path / "pack.zip")


def test_a_missing_part_is_refused_and_what_is_no_pack_is_an_error(pack, tmp_path):
    (pack / "LIMITS.md").unlink()
    with pytest.raises(Refused, match=r"no LIMITS\.md"):
        read_pack(pack)
    with pytest.raises(WagleError, match="there is no pack"):
        read_pack(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(WagleError, match="not a readable zip"):
        read_pack(tmp_path / "text.zip")
    shutil.rmtree(pack)
    pack.mkdir()
    with pytest.raises(WagleError, match="not a pack of evidence"):
        read_pack(pack)


def test_what_is_not_json_is_refused_by_name():
    with pytest.raises(Refused, match=r"claim\.json is not valid JSON"):
        json_of({"claim.json": b"{"}, "claim.json")
