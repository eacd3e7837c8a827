"""Masks from strangers: files that are whole, and whose content contradicts itself."""

import pytest
import torch

from tests.mask.made import SHAPES, ladder, single
from tests.mutants import flipped, parts, resealed, survives
from wagle.mask.mask import Mask
from wagle.mask.reading import FORMAT
from wagle.report.text.mask import mask_json, mask_table, scores_table
from wagle.system.errors import WagleError
from wagle.system.files.checked import save_checked

CHOSEN = [i % 3 == 0 for i in range(47)]
HISTOGRAM = {"0": [[None, 1], [-3, 4]], "1": []}


def made(kind="single"):
    if kind == "single":
        return single(CHOSEN, score_histogram=HISTOGRAM, thresholds=[0.5], theta_share=[None])
    return ladder([i % 4 for i in range(47)], [0.2, 0.5, 0.8], thresholds=[0.5, 0.2, 0.1])


def use(path):
    """Everything that a mask is read for."""
    mask = Mask.load(path)
    for ratio in mask.ratios:
        one = mask.at(ratio)
        assert sum(int(one[name].sum()) for name in one) == one.count
        one.complement().compare(one)
    mask_json(mask), mask_table(mask), scores_table(mask), mask.digest()


@pytest.mark.parametrize("kind", ["single", "ladder"])
def test_flipped_bytes_of_a_mask_are_refused_in_one_line(tmp_path, kind):
    path = tmp_path / "m"
    made(kind).save(path)
    whole = path.read_bytes()
    accepted = 0
    for number in range(300):
        mutant = flipped(whole, number)
        path.write_bytes(mutant)
        accepted += survives(lambda: use(path), number) and mutant != whole
    assert accepted <= 3  # a byte of padding in the header says nothing


@pytest.mark.parametrize("kind", ["single", "ladder"])
def test_other_content_with_the_right_checksum_is_refused_or_makes_sense(tmp_path, kind):
    path = tmp_path / "m"
    made(kind).save(path)
    tensors, metadata = parts(path)
    accepted = 0
    for number in range(250):
        try:
            resealed(path, tensors, metadata, FORMAT, number)
        except ValueError:
            continue  # a NaN cannot be written
        accepted += survives(lambda: use(path), number)
    assert accepted < 100


def wrong(path, message, tensors=None, kind="single", **changes):
    made(kind).save(path)
    packed, metadata = parts(path)
    metadata = {k: v for k, v in {**metadata, **changes}.items() if v != "GONE"}
    save_checked(path, {**packed, **(tensors or {})}, metadata, FORMAT)
    with pytest.raises(WagleError, match=f"is corrupt: .*{message}") as caught:
        Mask.load(path)
    assert "\n" not in str(caught.value)


HUGE = [[name, [1 << 25, 1 << 32]] for name in SHAPES]  # 400 PiB and more
NAMES = list(SHAPES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [5]}, r"it selects \[16\] weights, but its counts are \[5\]"),
        ({"counts": [16, 16]}, "its counts are not a whole number per ratio"),
        ({"counts": "GONE"}, "its counts are not"),
        ({"counts": [-1]}, "its counts are not"),
        ({"ratios": "GONE"}, "its ratios are not numbers"),
        ({"ratios": []}, "its ratios are no ladder"),
        ({"ratios": [0.0]}, "its ratios are not numbers"),
        ({"ratios": [1.5]}, "its ratios are not numbers"),
        ({"ratios": [0.1, 0.2], "counts": [1, 16]}, "does not hold the 4 bits"),
        ({"parameters": "GONE"}, "it lists no parameters"),
        ({"parameters": []}, "it lists no parameters"),
        ({"parameters": [["a"]]}, "a parameter is not a name with a shape"),
        ({"parameters": HUGE}, r"model\.embed_tokens\.weight does not hold the 1 bits"),
        ({"parameters": [["a", [1] * 100]]}, "a parameter is not a name with a shape"),
        (
            {"parameters": [[NAMES[0], [5, 3]]]},
            "does not hold the levels of exactly its parameters",
        ),
        ({"candidates": 10**9}, "its number of candidates"),
        ({"candidates": "many"}, "its number of candidates"),
        ({"names": ["other"]}, "its names are not those of its parameters"),
        ({"names": 3}, "its names are not"),
        ({"score": 3}, "its score is no text"),
        ({"model": ["x"]}, "its model is no text"),
        ({"settings": []}, "its settings are no table"),
        ({"thresholds": [1, 2]}, "its thresholds is not a number per ratio"),
        ({"theta_share": "x"}, "its theta_share is not"),
        ({"score_histogram": {"0": [1]}}, "its score_histogram holds no counts"),
    ],
)
def test_metadata_that_cannot_be_is_one_line(tmp_path, changes, message):
    wrong(tmp_path / "m", message, **changes)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, dtype=torch.uint8), "embed_tokens.weight does not hold the 1 bits of each"),
        (torch.zeros(2, dtype=torch.int8), "embed_tokens.weight does not hold"),
        (torch.zeros(1, 2, dtype=torch.uint8), "embed_tokens.weight does not hold"),
        (
            torch.zeros(2, dtype=torch.uint8),
            r"it selects \[11\] weights, but its counts are \[16\]",
        ),
        (torch.tensor([0, 128], dtype=torch.uint8), "embed_tokens.weight goes on after its last"),
    ],
)
def test_levels_that_are_not_those_of_the_header_are_one_line(tmp_path, tensor, message):
    wrong(tmp_path / "m", message, {NAMES[0]: tensor})


def test_levels_beyond_the_ladder_are_one_line(tmp_path):
    level = torch.full((8,), 0xFF, dtype=torch.uint8)  # 15 of 3
    level[-1] = 0x0F
    wrong(tmp_path / "m", "it selects ", {NAMES[0]: level}, "ladder")


def test_a_mask_that_does_not_say_what_it_is_for_is_one_line(tmp_path, model):
    mask = single(CHOSEN)
    mask.metadata.clear()
    mask.save(tmp_path / "m")
    with pytest.raises(WagleError, match="the mask does not say its candidates; make it again"):
        _ = Mask.load(tmp_path / "m").candidates
    mine = Mask.from_levels(
        {n: torch.ones(p.shape, dtype=torch.uint8) for n, p in model.named_parameters()},
        ratios=[1.0],
        counts=[sum(p.numel() for p in model.parameters())],
        metadata={},
    )
    with pytest.raises(WagleError, match="the mask does not say its model; make it again"):
        mine.check_model(model)
