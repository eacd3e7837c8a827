"""The probe protocol: how many records, and which ones a nonce draws."""

import hashlib

import pytest

from wagle.evidence.protocol import Protocol, check_nonce, draw_places, protocol_for
from wagle.system.errors import Refused, WagleError

PLACES = [f"forget[{i}]" for i in range(40)]


@pytest.mark.parametrize(("count", "probes"), [(6, 6), (24, 16), (100, 25), (400, 64)])
def test_a_quarter_is_asked_about_at_least_16_and_at_most_64(count, probes):
    assert protocol_for(count).probes == probes


def test_another_number_of_probes_must_be_one_that_there_is():
    assert protocol_for(6, probes=2).probes == 2
    with pytest.raises(WagleError, match="asks for 7 of 6 records"):
        protocol_for(6, probes=7)
    assert protocol_for(6, "bfloat16").tolerance > protocol_for(6).tolerance


def test_the_drawn_places_are_those_with_the_smallest_digests():
    def digest(place):
        return hashlib.sha256(f"c0ffee\0my nonce\0{place}".encode()).hexdigest()

    expected = sorted(PLACES, key=digest)[:5]
    assert draw_places("c0ffee", "my nonce", PLACES, 5) == sorted(expected, key=PLACES.index)


def test_the_draw_depends_on_the_commitment_and_on_the_nonce():
    draws = {
        tuple(draw_places(commitment, nonce, PLACES, 10))
        for commitment in ("aa", "bb")
        for nonce in ("one nonce", "two nonce")
    }
    assert len(draws) == 4
    with pytest.raises(WagleError, match="41 of 40"):
        draw_places("aa", "nonce", PLACES, 41)


def test_a_protocol_is_read_back_and_one_with_chosen_probes_is_refused():
    told = protocol_for(24).to_json()
    assert Protocol.from_json(told) == protocol_for(24)
    with pytest.raises(Refused, match="never chosen by the maker"):
        Protocol.from_json({**told, "places": ["forget[3]"]})
    for key, value in (("figures", ["probability"]), ("tolerance", 0.5), ("draw", "the easy ones")):
        with pytest.raises(Refused, match="not the one of wagle"):
            Protocol.from_json({**told, key: value})
    for wrong in (0, "all", None):
        with pytest.raises(Refused):
            Protocol.from_json({**told, "probes": wrong})


def test_a_short_nonce_is_refused():
    check_nonce("12345678")
    with pytest.raises(WagleError, match="too short"):
        check_nonce("1234567 ")
