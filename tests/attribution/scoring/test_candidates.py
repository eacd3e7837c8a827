"""Patterns of parameters, and reading what they match."""

import pytest
import torch

from tests.attribution.scoring.made import SHAPES, TRANSPOSED, make_store
from tests.conftest import FAMILIES, make_model
from wagle.attribution.scoring import candidates
from wagle.attribution.scoring.candidates import (
    SHORT_NAMES,
    Candidates,
    Measure,
    _matcher,
    matching,
    part_of,
)
from wagle.mask.mask import Mask
from wagle.system.errors import WagleError


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_short_names_divide_every_parameter_of_every_family(family):
    names = [name for name, _ in make_model(family).named_parameters()]
    parts = {name: part_of(name) for name in names}
    assert set(parts.values()) <= set(SHORT_NAMES)
    inside = {n for n in names if ".0." in n or ".1." in n}
    assert {n for n in names if parts[n] in ("ffn", "attention")} <= inside
    assert {n for n in names if parts[n] in ("embeddings", "head")}.isdisjoint(inside)
    for part in ("ffn", "attention", "embeddings", "norms"):
        assert part in parts.values()
    assert ("head" in parts.values()) == any("lm_head" in n for n in names)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.3.self_attn.q_norm.weight", "norms"),
        ("model.layers.3.post_feedforward_layernorm.weight", "norms"),
        ("transformer.ln_f.weight", "norms"),
        ("model.layers.3.block_sparse_moe.experts.0.w1.weight", "ffn"),
        ("model.decoder.layers.0.fc1.bias", "ffn"),
        ("gpt_neox.layers.0.attention.dense.weight", "attention"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("embed_out.weight", "head"),
        ("transformer.word_embeddings_layernorm.weight", "norms"),
        ("model.decoder.project_in.weight", ""),
        ("backbone.layers.0.mixer.A_log", ""),
    ],
)
def test_short_names_know_other_spellings(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["blocks:1"], [n for n in SHAPES if ".1." in n]),
        (["blocks:0-1"], [n for n in SHAPES if "layers" in n]),
        (["blocks:1", "norms"], [n for n in SHAPES if ".1." in n or "ln_" in n]),
        (["attention"], TRANSPOSED),
        (["*.up*", "embeddings"], [n for n in SHAPES if ".up" in n or "embed" in n]),
    ],
)
def test_patterns_are_globs_and_short_names(store, patterns, chosen):
    mask = Mask.from_scores(store, score="magnitude", ratio=1, include=patterns)
    assert mask.candidate_names == chosen
    rest = Mask.from_scores(store, score="magnitude", ratio=1, exclude=patterns)
    assert rest.candidate_names == [n for n in SHAPES if n not in chosen]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("blocks:4-2", "'blocks:4-2' is not a range of blocks; write blocks:4-11 or blocks:7"),
        ("blocks:-1", "is not a range of blocks"),
        ("blocks:all", "is not a range of blocks"),
        ("blocks:2-9", "'blocks:2-9' matches no parameter"),
        ("head", "'head' matches no parameter .* it may be tied to the embeddings"),
        ("fnn", "'fnn' matches no parameter .* short names are ffn, attention, .* blocks:4-11"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_patterns_are(store, pattern, said):
    with pytest.raises(WagleError, match=said):
        Mask.from_scores(store, include=[pattern])


# ---------------------------------------------------------------------------------------------
# Reading

BIAS, TURNED = "layers.0.ln_1.bias", TRANSPOSED[0]


def spans(chunk, monkeypatch, names, *, whole_rows):
    monkeypatch.setattr(candidates, "_CHUNK", chunk)
    return list(Candidates(make_store(), names)._spans(whole_rows))


def test_chunks_cut_rows_only_where_they_may(monkeypatch):
    up = "layers.0.mlp.up.weight"  # nine rows of four
    free = [(up, i, min(i + 10, 36)) for i in range(0, 36, 10)]
    assert spans(10, monkeypatch, [up], whole_rows=False) == free
    rows = [(up, i, min(i + 8, 36)) for i in range(0, 36, 8)]
    assert spans(10, monkeypatch, [up], whole_rows=True) == rows
    assert spans(3, monkeypatch, [up], whole_rows=True) == [(up, i, i + 4) for i in range(0, 36, 4)]
    assert spans(3, monkeypatch, [TURNED], whole_rows=True) == [(TURNED, 0, 24)]
    assert spans(36, monkeypatch, [up], whole_rows=False) == [(up, 0, 36)]


def test_rows_of_vectors_and_experts():
    every = Candidates(make_store(), list(SHAPES))
    assert (every.row_length(BIAS), every.rows(BIAS)) == (5, 1)
    experts = "layers.1.mlp.experts.up"  # (2, 3, 4)
    assert (every.row_length(experts), every.rows(experts)) == (4, 6)


def test_a_mask_remembers_names_only_where_they_are_not_all():
    store = make_store()
    every = Candidates(store, list(SHAPES)).describe()
    assert (every["names"], every["candidates"]) == (None, sum(map(store.size, SHAPES)))
    part = Candidates(store, [BIAS], seed=4).of([TURNED, BIAS])
    assert part.seed == 4
    assert part.describe(["norms"], ("head",)) == {
        "include": ["norms"],
        "exclude": ["head"],
        "names": [TURNED, BIAS],
        "candidates": 29,
        "model": "a71b80ff",
    }


def test_scores_are_float32_and_have_the_shape_of_what_they_score():
    values = {"weight": torch.arange(3.0)}
    doubled = Measure(lambda weight, *, by: weight.double() * by, ("weight",), {"by": 2})
    assert doubled("w", values).dtype == torch.float32
    assert doubled("w", values).tolist() == [0, 2, 4]
    reversed_ = Measure(lambda weight: weight.expand(2, 3).T[:, 0], ("weight",), {})
    assert reversed_("w", values).is_contiguous()
    with pytest.raises(WagleError, match=r"for w that is \(3,\), not \(1, 3\)$"):
        Measure(lambda weight: weight[None], ("weight",), {})("w", values)
    with pytest.raises(WagleError, match=r"for w that is \(3,\), not float$"):
        Measure(lambda weight: float(weight.sum()), ("weight",), {})("w", values)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("blocks:1", "layers.1.w", "layers.10.w"),
        ("blocks:1-10", "layers.10.w", "layers.11.w"),
        ("blocks:07", "layers.7.w", "layers.0.w"),
        ("*.w", "a.w", "a.W"),
        ("norm?", "norm1", "norms.weight"),
        ("[ab].w", "b.w", "c.w"),
    ],
)
def test_a_pattern_matches_the_whole_name(pattern, inside, outside):
    assert _matcher(pattern)(inside)
    assert not _matcher(pattern)(outside)


def test_patterns_that_are_one_text_are_refused_and_none_match_nothing():
    with pytest.raises(WagleError, match=r"^include is 'ffn'; give a list, such as \['ffn'\]$"):
        matching(["a"], "ffn", "include")
    assert matching(["a"], [], "include") == set()
    assert matching(iter(["a", "b"]), ["a", "?"], "include") == {"a", "b"}
