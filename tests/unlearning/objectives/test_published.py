import pytest

from wagle.unlearning.objectives import OBJECTIVES, choose_objective
from wagle.unlearning.objectives.published import PUBLISHED


@pytest.mark.parametrize("name", sorted(set(PUBLISHED.values())))
def test_every_published_name_stands_for_an_objective(name):
    assert name in OBJECTIVES


@pytest.mark.parametrize(
    ("source", "published", "retain"),
    [("wagle", "GA+FT", "nll"), ("wagle", "CL+KL", "kl"), ("openunlearning", "GradDiff", "nll")],
)
def test_a_published_name_says_the_retain_term(source, published, retain):
    assert choose_objective(PUBLISHED[source, published]).retain == retain


def test_the_names_of_sources_are_not_taken_for_ours():
    taken = {published for _, published in PUBLISHED} & set(OBJECTIVES)
    assert taken == {"l1_sparse"}  # which means the same
