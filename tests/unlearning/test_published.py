import pytest

from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.table import OBJECTIVES
from wagle.unlearning.published import PUBLISHED


@pytest.mark.parametrize("name", sorted(set(PUBLISHED.values())))
def test_every_published_name_stands_for_an_objective(name):
    assert name in OBJECTIVES


@pytest.mark.parametrize(
    ("source", "published", "retain"),
    [
        ("wagle", "GA+FT", "nll"),
        ("wagle", "CL+KL", "kl"),
        ("openunlearning", "GradDiff", "nll"),
        ("tofu", "KL", "kl"),  # which is another thing than wagle's
        ("tofu", "idk", "nll"),
        ("knowundo", "ascent_plus_kl_divergence", "kl"),
        ("closerlook", "NPO+GD", "nll"),
    ],
)
def test_a_published_name_says_the_retain_term(source, published, retain):
    assert choose_objective(PUBLISHED[source, published]).retain == retain


@pytest.mark.parametrize(
    ("source", "published", "ours"),
    [
        ("tofu", "dpo", "dpo"),
        ("npo", "npo_KL", "npo"),
        ("npo", "KL", "ga_kl"),
        ("smooth", "NPO+SAM", "npo"),
        ("knowundo", "gradient_ascent", "grad_ascent"),
        ("g_effect", "rmu_L", "rmu"),
        ("g_effect", "idk", "refusal"),
        ("closerlook", "DPO+GD", "dpo"),
        ("muse", "NPO_GDR", "npo"),
    ],
)
def test_a_published_name_is_known_by_its_source(source, published, ours):
    assert PUBLISHED[source, published] == ours


def test_a_name_that_a_source_shares_with_us_means_the_same_unless_it_is_known_not_to():
    shared = {place: ours for place, ours in PUBLISHED.items() if place[1] in OBJECTIVES}
    assert {p: ours for p, ours in shared.items() if p[1] != ours} == {
        ("knowundo", "random_label"): "random_label_uniform"
    }
