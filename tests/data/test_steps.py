"""Steps: which pairs every process has of a step, and in which micro-batches."""

from wagle.data.batches import Pairs, Steps
from wagle.data.tokens import Tokens


def _steps(count, per_step, size, world):
    """Per step and rank the forget records of every micro-batch."""
    tokens = [Tokens((5, 6 + i), (False, True), id=f"f{i}") for i in range(count)]
    data = Pairs([(i, -1) for i in range(count)], {"forget": tokens}, {})
    ranks = [Steps(data, per_step, size, rank=rank, world=world) for rank in range(world)]
    return [
        [[m["forget"]["index"].tolist() if m else [] for m in rank[i]["micros"]] for rank in ranks]
        for i in range(len(ranks[0]))
    ]


def test_micro_batches_are_dealt_out_whole_where_all_processes_get_as_many():
    assert _steps(8, 8, 2, 1) == [[[[0, 1], [2, 3], [4, 5], [6, 7]]]]
    assert _steps(8, 8, 2, 2) == [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]
    assert _steps(11, 8, 2, 2)[1] == [[[8, 9]], [[10]]]  # a last step that is cut short
    assert _steps(9, 8, 2, 2)[1] == [[[8]], [[]]]


def test_otherwise_the_pairs_of_a_step_are():
    assert _steps(4, 4, 4, 2) == [[[[0, 2]], [[1, 3]]]]
    assert _steps(6, 6, 2, 2) == [[[[0, 2], [4]], [[1, 3], [5]]]]
