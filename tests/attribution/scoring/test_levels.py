"""From scores to levels, over a few weights that can be counted by hand."""

import torch

from tests.attribution.scoring.made import SHAPES, TRANSPOSED, make_store
from wagle.attribution.scoring.candidates import Candidates, Measure
from wagle.attribution.scoring.levels import Found, Group, _in_rows, select
from wagle.attribution.scoring.selection import count_bins, octaves
from wagle.mask.mask import Mask

BIAS, TURNED = "layers.0.ln_1.bias", TRANSPOSED[0]
MAGNITUDE = Measure(lambda weight: weight.abs(), ("weight",), {})


def store_of(**weights):
    """A store whose weights are zero but for those given, under short names."""
    found = {n: torch.zeros(s) for n, s in SHAPES.items()}
    for name, values in weights.items():
        full = {"bias": BIAS, "turned": TURNED, "up": "layers.0.mlp.up.weight"}[name]
        found[full] = torch.tensor(values).view(SHAPES[full])
    return make_store({"weight": found})


def levels(found, name):
    return Mask(*found.writer.finish(found.counts, {})).level(name)


def test_a_group_selects_its_own_largest_and_counts_add_up():
    store = store_of(bias=[5.0, -4.0, 3.0, 2.0, 1.0])
    groups = [Group([BIAS], [1, 3]), Group(["layers.1.mlp.down.weight"], [0, 2])]
    found = select(Candidates(store, list(SHAPES)), MAGNITUDE, groups, [0.1, "0.5"])
    assert found.ratios == [0.1, 0.5]
    assert found.counts == [1, 5]
    assert levels(found, BIAS).tolist() == [2, 1, 1, 0, 0]
    assert int(levels(found, "layers.1.mlp.down.weight").sum()) == 2  # ties: the earlier ones
    assert levels(found, "layers.1.mlp.down.weight").view(-1)[:3].tolist() == [1, 1, 0]
    assert not levels(found, "embed.weight").any()  # in no group


def test_a_group_that_selects_nothing_is_seen_and_left_at_level_0():
    store = store_of(bias=[5.0, 4.0, 3.0, 2.0, 1.0])
    found = select(Candidates(store, [BIAS]), MAGNITUDE, [Group([BIAS], [0])], [0.1])
    assert found.counts == [0]
    assert found.thresholds == []
    assert not levels(found, BIAS).any()
    assert found.histogram == {"0": [[0, 1], [1, 2], [2, 2]]}  # 1; 2 and 3; 4 and 5


def test_rows_of_a_transposed_layer_are_its_columns():
    turned = torch.arange(24.0).view(4, 6)
    store = make_store(
        {"weight": {**{n: torch.zeros(s) for n, s in SHAPES.items()}, TURNED: turned}}
    )
    inside = Candidates(store, [TURNED])
    assert (inside.row_length(TURNED), inside.rows(TURNED)) == (4, 6)
    found = select(inside, MAGNITUDE, [Group([TURNED], [1])], [0.25], by_row=True)
    assert levels(found, TURNED).tolist() == [[0] * 6] * 3 + [[1] * 6]  # the last input of each
    assert found.counts == [6]


def test_rows_are_handed_over_one_output_each():
    store, seen = make_store(), []

    def note(rows):
        seen.append(rows.tolist())
        return rows

    flat = torch.arange(24.0)
    assert torch.equal(_in_rows(Candidates(store, []), TURNED, flat, note), flat)
    assert seen[0] == torch.arange(24.0).view(4, 6).T.tolist()
    part = torch.arange(8.0)  # two rows of four of an ordinary layer
    assert torch.equal(_in_rows(Candidates(store, []), "layers.0.mlp.up.weight", part, note), part)
    assert seen[1] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_shares_of_dominated_weights_are_over_what_each_ratio_selects():
    store = store_of(bias=[5.0, 4.0, 3.0, 2.0, 1.0])
    inside = Candidates(store, [BIAS])
    found = select(
        inside,
        MAGNITUDE,
        [Group([BIAS], [2, 4])],
        [0.4, 0.8],
        dominated=lambda values: values["weight"] != 4,
    )
    assert found.theta_share == [1 / 2, 3 / 4]
    assert Found(inside, [0.5]).theta_share is None


def test_the_octaves_of_a_block_are_added_and_zeros_have_no_exponent():
    found = Found(Candidates(make_store(), []), [0.5])
    for name, values in (
        (BIAS, [1.0, 1.5, 2.0]),
        ("layers.0.mlp.up.weight", [0.0, -3.0, 1.0, 1e-45]),
        ("embed.weight", [0.25]),
    ):
        scores = torch.tensor(values)
        found.see(name, octaves(scores, count_bins(scores)))
    assert found.histogram == {
        "0": [[None, 2], [-127, 1], [0, 3], [1, 1]],
        "embed.weight": [[-2, 1]],
    }
