"""Salts and keyed digests."""

import hashlib
import hmac

import pytest

from wagle.system.errors import WagleError
from wagle.system.files.secrets import keyed_digest, private_folder, salt


def test_a_digest_is_the_first_quarter_of_hmac_sha_256():
    key = bytes(range(32))
    whole = hmac.new(key, b"first\0zweite \xc3\xa4", hashlib.sha256).hexdigest()
    assert keyed_digest(key, ["first", "zweite ä"]) == whole[:16]
    assert keyed_digest(key, []) == hmac.new(key, b"", hashlib.sha256).hexdigest()[:16]


def test_a_digest_tells_orders_and_cuts_apart():
    one = keyed_digest(b"k", ["a", "bc"])
    assert len({one, *(keyed_digest(b"k", x) for x in (["bc", "a"], ["ab", "c"], ["abc"]))}) == 4


def test_a_salt_is_made_once_read_again_and_only_its_owners(tmp_path):
    first = salt(tmp_path)
    assert len(first) == 32
    assert salt(tmp_path) == first
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "salt").read_text() == first.hex() + "\n"
    assert salt(tmp_path / "other") != first


def test_a_private_folder_that_is_open_to_others_is_closed(tmp_path):
    (tmp_path / "p").mkdir(mode=0o755)
    (tmp_path / "p" / "kept").write_text("x")
    assert private_folder(tmp_path / "p") == tmp_path / "p"
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "p" / "kept").read_text() == "x"


def test_a_file_in_place_of_a_private_folder_is_a_one_line_error(tmp_path):
    (tmp_path / "p").write_text("x")
    with pytest.raises(WagleError, match=r"cannot write .*/p: File exists"):
        private_folder(tmp_path / "p")
