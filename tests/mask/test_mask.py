import math

import pytest
import torch
from hypothesis import given

import wagle
from tests.conftest import make_model
from tests.mask.made import N, bits, ladder, single, three_levels
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.scores import SCORES
from wagle.mask.mask import Mask
from wagle.model.structure import place
from wagle.system.errors import WagleError


@pytest.fixture
def store(model, tokenizer, forget, retain):
    return wagle.gradients(model, tokenizer, forget, retain)


@pytest.mark.parametrize("score", ["wagle", "magnitude", "random"])
@pytest.mark.parametrize("ratio", [0.05, 0.29, 0.8, 1.0])
def test_a_mask_selects_exactly_the_floor_of_ratio_times_n(store, model, score, ratio):
    mask = Mask.from_scores(store, score=score, ratio=ratio)
    total = sum(p.numel() for p in model.parameters())
    assert mask.candidates == total
    assert (
        sum(int(m.sum()) for m in mask.values()) == mask.count == round(ratio * 100) * total // 100
    )
    assert list(mask) == [n for n, _ in model.named_parameters()]


def test_a_mask_equals_a_stable_sort_of_all_scores(store):
    gamma = 1e-3
    mask = Mask.from_scores(store, gamma=gamma, ratio=0.3)
    scores = torch.cat(
        [
            (
                (store.get("weight", n) - store.get("grad_retain", n) / gamma)
                * store.get("grad_forget", n)
            )
            .abs()
            .reshape(-1)
            for n in store.shapes
        ]
    )
    expected = torch.zeros(len(scores), dtype=torch.bool)
    expected[scores.sort(descending=True, stable=True).indices[: mask.count]] = True
    assert torch.equal(torch.cat([m.reshape(-1) for m in mask.values()]), expected)


def test_gamma_auto_is_the_value_at_which_half_of_the_weights_are_theta_dominated(store):
    gamma = Mask.from_scores(store, gamma="auto").metadata["settings"]["gamma"]
    assert (
        gamma == Mask.from_scores(store, gamma={"theta_share": 0.5}).metadata["settings"]["gamma"]
    )
    share = _theta_share(store, gamma)
    assert abs(share - 0.5) < 1e-3
    wide = Mask.from_scores(store, gamma={"theta_share": 0.9}).metadata["settings"]["gamma"]
    assert abs(_theta_share(store, wide) - 0.9) < 1e-3


def _theta_share(store, gamma):
    dominated = total = 0
    for name in store.shapes:
        weight, retain = store.get("weight", name), store.get("grad_retain", name)
        dominated += int((weight.abs() * gamma > retain.abs()).sum())
        total += weight.numel()
    return dominated / total


def test_a_ladder_is_nested_and_each_step_equals_its_own_mask(store):
    ratios = [0.1, 0.25, 0.5, 0.9, 1.0]
    ladder = Mask.from_scores(store, ratio=ratios)
    for ratio in ratios:
        alone, step = Mask.from_scores(store, ratio=ratio), ladder.at(ratio)
        assert step.count == alone.count
        assert step.metadata["thresholds"] == alone.metadata["thresholds"]
        assert all(torch.equal(step[n], alone[n]) for n in alone)


def test_using_a_ladder_as_one_mask_is_an_error(store):
    ladder = Mask.from_scores(store, ratio=[0.1, 0.5])
    for use in (
        lambda: ladder["lm_head.weight"],
        lambda: ladder.ratio,
        lambda: ladder.count,
        ladder.density,
    ):
        with pytest.raises(WagleError, match=r"choose one with mask.at\(ratio\)"):
            use()
    with pytest.raises(WagleError, match=r"has no ratio 0\.2"):
        ladder.at(0.2)


@pytest.mark.parametrize("ratios", [[0.5, 0.1], [0.1, 0.1], []])
def test_a_ladder_out_of_order_is_refused(store, ratios):
    with pytest.raises(WagleError, match="ratios"):
        Mask.from_scores(store, ratio=ratios)


def test_excluded_parameters_are_there_and_all_false(store):
    mask = Mask.from_scores(store, ratio=0.5, exclude=["model.embed_tokens.*"])
    assert not mask["model.embed_tokens.weight"].any()
    assert mask.candidates == sum(math.prod(s) for n, s in store.shapes.items() if "embed" not in n)
    only = Mask.from_scores(store, ratio=1.0, include=["*.mlp.*"])
    assert {n for n, m in only.items() if m.any()} == {n for n in store.shapes if ".mlp." in n}
    with pytest.raises(WagleError, match=r"'\*.ffn.\*' matches no parameter"):
        Mask.from_scores(store, include=["*.ffn.*"])


@pytest.mark.parametrize("ratio", [0.4, [0.1, 0.4, 0.6]])
def test_a_saved_mask_comes_back_and_equal_masks_are_equal_files(store, tmp_path, ratio):
    mask = Mask.from_scores(store, ratio=ratio)
    mask.save(tmp_path / "a")
    Mask.from_scores(store, ratio=ratio).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = Mask.load(tmp_path / "a")
    assert again.describe() == mask.describe()
    assert list(again) == list(mask)
    assert all(torch.equal(again.level(n), mask.level(n)) for n in mask)
    bits = 1 if len(mask.ratios) == 1 else 4
    assert (tmp_path / "a").stat().st_size < bits * mask.candidates / 8 + 8000


def test_a_truncated_a_flipped_and_a_foreign_file_are_refused(store, tmp_path):
    path = tmp_path / "mask"
    Mask.from_scores(store, ratio=0.4).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(WagleError, match="truncated or corrupt"):
        Mask.load(path)
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(WagleError, match="its checksum does not match"):
        Mask.load(path)
    digit = whole.index(b'counts\\":[') + len(b'counts\\":[')
    path.write_bytes(whole[:digit] + b"9" + whole[digit + 1 :])
    with pytest.raises(WagleError, match="its checksum does not match"):
        Mask.load(path)
    with pytest.raises(WagleError, match="does not exist"):
        Mask.load(tmp_path / "none")


def test_a_mask_of_another_model_is_refused(store, model):
    mask = Mask.from_scores(store, ratio=0.4)
    mask.check_model(model)
    other = make_model("llama-tied", seed=5)
    with pytest.raises(WagleError, match=r"the mask belongs to model \w{6}, but this is \w{6}"):
        mask.check_model(other)
    mask.check_model(other, allow_other_model=True)
    with pytest.raises(WagleError, match="does not fit the model"):
        mask.check_model(make_model("gpt2"), allow_other_model=True)


def test_densities_add_up_to_the_count(store):
    mask = Mask.from_scores(store, ratio=0.4)
    for by in ("block", "kind", "parameter"):
        found = mask.density(by)
        assert sum(s for s, _ in found.values()) == mask.count
        assert sum(n for _, n in found.values()) == mask.candidates
    assert {"0", "1"} <= set(mask.density("block"))
    assert "mlp.up_proj.weight" in mask.density("kind")


def test_a_users_own_score_is_accepted_wherever_a_name_is(store):
    mask = Mask.from_scores(store, score=lambda grad_forget: grad_forget.abs(), ratio=0.2)
    inside = min(store.get("grad_forget", n).abs()[mask[n]].min() for n in mask if mask[n].any())
    outside = max(
        store.get("grad_forget", n).abs()[~mask[n]].max() for n in mask if not mask[n].all()
    )
    assert inside >= outside


def test_unknown_scores_name_the_nearest(store):
    with pytest.raises(WagleError, match="unknown score 'wagel'; did you mean 'wagle'"):
        Mask.from_scores(store, score="wagel")


@pytest.mark.parametrize("family", ["gpt2", "llama-untied"])
def test_every_score_makes_a_mask_from_one_gradient_store(family, tokenizer, forget, retain):
    store = wagle.gradients(
        make_model(family), tokenizer, forget, retain, quantities=list(COLLECTED)
    )
    for name in SCORES:
        ladder = Mask.from_scores(store, score=name, ratio=[0.1, 0.5])
        for ratio, count in zip(ladder.ratios, ladder.counts, strict=True):
            mask = ladder.at(ratio)
            assert sum(int(m.sum()) for m in mask.values()) == mask.count == count
        assert all(n > 0 for bins in ladder.metadata["score_histogram"].values() for _, n in bins)
    wanda = Mask.from_scores(store, score="wanda", ratio=0.5)
    assert all(place(name)[0] and len(wanda.shapes[name]) == 2 for name in wanda.candidate_names)


@given(three_levels)
def test_the_ratios_of_a_ladder_are_nested_and_exact(levels):
    mask = ladder(levels, [0.1, 0.5, 0.9])
    found = [bits(mask.at(ratio)) for ratio in mask.ratios]
    assert found == [[level >= need for level in levels] for need in (3, 2, 1)]
    assert [sum(one) for one in found] == list(mask.counts)
    for by in ("block", "kind", "parameter"):
        for which, ratio in enumerate(mask.ratios):
            alone = {k: (c[which], n) for k, (c, n) in mask.densities(by).items()}
            assert mask.at(ratio).density(by) == alone
    for of in (mask, mask.at(0.5)):
        for name in of.shapes:
            whole = of.level(name).view(-1)
            parts = [of.levels(name, i, min(i + 8, len(whole))) for i in range(0, len(whole), 8)]
            assert torch.equal(torch.cat(parts), whole)
    parameters = mask.at(0.5).density("parameter")
    assert parameters == {n: (int(t.sum()), t.numel()) for n, t in mask.at(0.5).items()}


def test_an_unknown_grouping_of_densities_names_the_known_ones():
    with pytest.raises(WagleError, match=r"unknown grouping 'blok'; did you mean 'block'"):
        single([True] * N).density("blok")


@pytest.mark.parametrize("missing", ["null", "absent"])
def test_metadata_with_an_entry_per_ratio_follows_the_ratio(missing, tmp_path):
    histogram = {"0": [[None, 2], [-3, 7]]}
    mask = ladder([0, 1, 2] * (N // 3) + [0] * (N % 3), [0.2, 0.6], score_histogram=histogram)
    mask.metadata |= {"theta_share": [0.25, 0.5]}
    if missing == "absent":
        del mask.metadata["thresholds"]
    mask.save(tmp_path / "mask")
    chosen = Mask.load(tmp_path / "mask").at(0.6)
    assert chosen.metadata["theta_share"] == [0.5]
    assert chosen.metadata.get("thresholds") is None
    assert chosen.describe()["score_histogram"] == histogram
