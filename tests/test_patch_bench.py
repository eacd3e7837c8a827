import pytest
from bench.patches import MEASURES, entropy, lines
from bench.setup import Setup


def test_entropy_is_the_one_worked_out_by_hand():
    assert entropy(0.5) == 1.0
    assert entropy(0.25) == pytest.approx(0.25 * 2 + 0.75 * 0.4150375)


def test_patches_of_a_tiny_model_are_as_small_as_their_bound(tmp_path, model_folder):
    setup = Setup(str(model_folder), None, str(tmp_path / "scratch"))
    known = {name: measure(setup) for name, measure in MEASURES.items()}
    found = lines(known)
    shares = [line for line in found if line.what.endswith("patch over model")]
    assert [line.what.split(":")[0] for line in shares] == [
        f"{dtype}, ratio {ratio}" for dtype in ("float32", "bfloat16") for ratio in (0.05, 0.2, 0.8)
    ]
    # the names and digests of a model of 20,000 weights weigh more than those of a real one
    values = [0.05, 0.2, 0.8]
    for line, ratio in zip(shares, [*values, *values], strict=True):
        assert ratio < line.value < ratio + 0.3
    assert len(found) == 6 * 10
    assert all(line.value > 0 for line in found)
