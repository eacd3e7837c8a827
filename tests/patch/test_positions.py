import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wagle.patch import positions as module
from wagle.patch.positions import Positions, decode, encode, sound
from wagle.system.errors import WagleError


def coded(positions, size):
    """Encode a list of positions, split into parts as a comparison would."""
    flat = np.zeros(size, dtype=bool)
    flat[positions] = True
    step = module._CHUNK
    return encode((flat[i : i + step] for i in range(0, size, step)), size)


def decoded(positions, size):
    return [int(p) for part in decode(positions, size) for p in part]


def gaps_of(positions):
    return [int(b) - int(a) - 1 for a, b in zip([-1, *positions], positions, strict=False)]


def slow_byte_code(positions):
    """The gap code, one weight at a time."""
    code = []
    for gap in gaps_of(positions):
        code += [255] * (gap // 255) + [gap % 255]
    return code


def slow_rice(gaps, planes):
    """The Rice code as its description says, bit by bit."""

    def packed(bits):
        bits = bits + "0" * (-len(bits) % 8)
        return [int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8)]

    code = [planes]
    for plane in range(planes):
        code += packed("".join(str(gap >> plane & 1) for gap in gaps))
    return code + packed("".join("0" * (gap >> planes) + "1" for gap in gaps))


def slow_best(positions, size):
    """All codes that may be the smallest: {encoding: code}."""
    flat = np.isin(np.arange(size), positions)
    changed = 2 * len(positions) <= size
    gaps = gaps_of(positions if changed else np.flatnonzero(~flat))
    planes = min(range(20), key=lambda k: k * len(gaps) + sum(g >> k for g in gaps))
    codes = {
        "bits": np.packbits(flat, bitorder="little").tolist(),
        "rice" if changed else "rice_unchanged": slow_rice(gaps, planes),
    }
    return {**codes, "gaps": slow_byte_code(positions)} if changed else codes


@st.composite
def sparse_or_dense(draw):
    """Sorted positions and a size; gaps near multiples of 255 are frequent."""
    edge = st.sampled_from([0, 1, 253, 254, 255, 256, 257, 509, 510, 511, 765])
    gaps = draw(st.lists(st.one_of(edge, st.integers(0, 40), st.integers(0, 3000)), max_size=40))
    positions = list(np.cumsum([g + 1 for g in gaps]) - 1) if gaps else []
    size = (int(positions[-1]) + 1 if gaps else 0) + draw(st.integers(0, 600))
    return [int(p) for p in positions], size


@st.composite
def of_any_density(draw):
    """Sorted positions and a size; every density is as likely."""
    size = draw(st.integers(0, 400))
    chance = draw(st.randoms(use_true_random=False))
    return sorted(chance.sample(range(size), chance.randint(0, size))), size


CASES = st.one_of(sparse_or_dense(), of_any_density())


@pytest.mark.parametrize("step", [8, 64, 1 << 22])
@settings(deadline=None, max_examples=150)
@given(case=CASES)
def test_any_positions_come_back_whatever_the_chunks(step, case):
    positions, size = case
    whole = coded(positions, size)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_CHUNK", step)
        code = coded(positions, size)
        assert (code.encoding, code.code.tolist()) == (whole.encoding, whole.code.tolist())
        assert decoded(code, size) == positions
        assert code.count == len(positions)


@settings(deadline=None, max_examples=200)
@given(case=CASES)
def test_the_smallest_code_is_stored(case):
    positions, size = case
    code = coded(positions, size)
    if len(positions) == size:
        assert (code.encoding, len(code.code)) == ("all", 0)
    elif positions:
        codes = slow_best(positions, size)
        assert code.code.tolist() == codes[code.encoding]
        assert len(code.code) == min(map(len, codes.values()))


@pytest.mark.parametrize("step", [8, 1 << 22])
@settings(deadline=None, max_examples=100)
@given(case=CASES)
def test_every_encoding_comes_back_though_another_is_smaller(step, case):
    positions, size = case
    if not 0 < len(positions) < size:
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_CHUNK", step)
        for encoding, code in slow_best(positions, size).items():
            found = Positions(encoding, np.array(code, dtype=np.uint8), len(positions))
            assert sound(found, size), encoding
            assert decoded(found, size) == positions, encoding


@pytest.mark.parametrize(
    ("gap", "code"),
    [
        (0, [0]),
        (254, [254]),
        (255, [255, 0]),
        (256, [255, 1]),
        (510, [255, 255, 0]),
    ],
)
def test_gap_code_of_one_position_is_as_worked_out_by_hand(gap, code):
    assert coded([gap], 5000).encoding == "gaps"
    assert coded([gap], 5000).code.tolist() == code
    assert coded([9, 10 + gap], 5000).code.tolist() == [9, *code]


def test_rice_code_is_as_worked_out_by_hand():
    # gaps 5, 0, 3, 6, 1, 2, 4, 9, 8 of nine positions; two planes: low bits 1 0 3 2 1 2 0 1 0,
    # left in unary 1 0 0 1 0 0 1 2 2
    positions = [5, 6, 10, 17, 19, 22, 27, 37, 46]
    code = [2, 0b10010101, 0, 0b00101100, 0, 0b11101110, 0b10010010, 0]
    found = Positions("rice", np.array(code, dtype=np.uint8), 9)
    assert slow_rice(gaps_of(positions), 2) == code[:-1]
    assert decoded(Positions("rice", found.code[:-1], 9), 60) == positions
    assert not sound(found, 60)  # a byte more than it takes
    assert sound(Positions("rice", found.code[:-1], 9), 60)


@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_random_positions_take_at_most_three_percent_more_than_their_entropy(ratio):
    size = 1 << 20
    flat = np.random.default_rng(3).random(size) < ratio
    found = encode([flat], size)
    share = flat.mean()
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert 8 * len(found.code) <= 1.03 * entropy * size
    assert np.array_equal(np.concatenate(list(decode(found, size))), np.flatnonzero(flat))


def test_at_a_ratio_of_a_twentieth_a_patch_is_at_most_nine_percent_of_the_model():
    size = 1 << 20
    flat = np.random.default_rng(4).permutation(size) < size // 20
    each = len(encode([flat], size).code) / size  # bytes per weight
    assert 0.05 + each / 4 <= 0.06  # float32
    assert 0.05 + each / 2 <= 0.07  # bfloat16


def test_full_is_all_and_empty_has_no_bytes():
    assert coded(list(range(1000)), 1000).encoding == "all"
    empty = coded([], 1000)
    assert (empty.encoding, len(empty.code), empty.count) == ("gaps", 0, 0)


@pytest.mark.parametrize(
    ("encoding", "code", "count", "size"),
    [
        ("gaps", [3, 255], 1, 9999),  # a gap that does not end
        ("gaps", [3, 4], 1, 9999),  # more positions than counted
        ("gaps", [3, 4], 2, 8),  # 3 and 8: one past the end
        ("gaps", [], 0, 8),
        ("bits", [1, 0], 1, 8),  # too long
        ("bits", [3], 1, 8),
        ("bits", [16], 1, 4),  # a bit past the end
        ("bits", [], 0, 0),
        ("all", [], 3, 4),
        ("runs", [1], 1, 4),
        ("rice", [], 1, 8),
        ("rice", [0], 1, 8),  # no unary bits
        ("rice", [0, 0b11], 1, 8),  # two positions, one counted
        ("rice", [0, 0b1, 0], 1, 8),  # a byte too many
        ("rice", [0, 0b10000], 1, 4),  # position 4 of 4
        ("rice", [1, 0b1, 0b10], 1, 3),  # position 3 of 3
        ("rice", [1, 0b10, 0b1], 1, 8),  # a bit beyond the plane
        ("rice", [200, 0b1], 1, 8),  # planes that are not there
        ("rice", [0, 0b11111111], 8, 8),  # that is all
        ("rice_unchanged", [0, 0b1], 8, 8),
        ("rice_unchanged", [0, 0b1], 9, 8),
    ],
)
def test_codes_that_fit_no_tensor_are_found(encoding, code, count, size):
    assert not sound(Positions(encoding, np.array(code, dtype=np.uint8), count), size)


@settings(deadline=None, max_examples=400)
@given(
    encoding=st.sampled_from(["all", "gaps", "bits", "rice", "rice_unchanged", "x"]),
    code=st.binary(max_size=24),
    count=st.integers(-2, 60),
    size=st.one_of(st.integers(0, 70), st.integers(0, 1 << 50)),
)
def test_any_bytes_are_refused_or_give_ascending_positions_of_the_tensor(
    encoding, code, count, size
):
    found = Positions(encoding, np.frombuffer(code, dtype=np.uint8), count)
    if sound(found, size):
        positions = decoded(found, size)
        assert len(positions) == len(set(positions)) == count
        assert positions == sorted(positions)
        assert 0 <= min(positions, default=0) <= max(positions, default=0) < max(size, 1)


def test_an_unknown_encoding_is_refused_by_name():
    with pytest.raises(WagleError, match="unknown encoding 'rise'; did you mean 'rice'"):
        decode(Positions("rise", np.zeros(1, dtype=np.uint8), 1), 8)
