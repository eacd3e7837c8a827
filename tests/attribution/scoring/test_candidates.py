"""Patterns of parameters."""

import pytest

from tests.attribution.scoring.made import (
    SHAPES,
    TRANSPOSED,
)
from tests.conftest import FAMILIES, make_model
from wagle.attribution.scoring.candidates import SHORT_NAMES, part_of
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
