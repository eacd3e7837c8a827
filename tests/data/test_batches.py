"""Batches: what pads to what, who goes with whom, and that none of it depends on chance."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

from wagle.data.batches import PAIRINGS, Pairs, _quotas, by_length, collate, plan, token_batches
from wagle.data.draws import order, uniform
from wagle.data.reading import read_records
from wagle.data.tokens import Tokens
from wagle.system.errors import WagleError

TWO_CORES = "ignore:This DataLoader will create 4 worker processes:UserWarning"


def records(count, start="r", **more):
    return [Tokens((5, 6 + i), (False, True), id=f"{start}{i}", **more) for i in range(count)]


def epochs(pairs, size):
    return [pairs[i : i + size] for i in range(0, len(pairs), size)]


# ---------------------------------------------------------------------------------------------
# Packing and padding


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_no_group_pads_beyond_the_budget_and_every_record_has_one_place(lengths, budget):
    groups = by_length(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    assert [lengths[i] for group in groups for i in group] == sorted(lengths, reverse=True)


def test_groups_are_filled_and_a_record_beyond_the_budget_stands_alone():
    assert by_length([4, 9, 4, 30, 4, 8], 18) == [[3], [1, 5], [0, 2, 4]]
    assert by_length([], 18) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_known_by_length_alone(side):
    short = Tokens((0, 2, 2), (False, False, True))  # ids that elsewhere mean padding
    long = Tokens((7, 8, 9, 10, 11), (False, True, False, True, True))
    batch = collate([short, long], [4, 1], side=side, multiple=1)
    pad, no = [0, 0], [False, False]
    left = side == "left"
    assert batch["input_ids"].tolist() == [
        [*pad, 0, 2, 2] if left else [0, 2, 2, *pad],
        [7, 8, 9, 10, 11],
    ]
    assert batch["attention_mask"].tolist() == [
        [0, 0, 1, 1, 1] if left else [1, 1, 1, 0, 0],
        [1] * 5,
    ]
    assert batch["scored"].tolist() == [
        [*no, False, False, True] if left else [False, False, True, *no],
        [False, True, False, True, True],
    ]
    real = batch["position_ids"][0][batch["attention_mask"][0].bool()]
    assert real.tolist() == [0, 1, 2]
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3, 4]
    assert batch["index"].tolist() == [4, 1]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.sampled_from([1, 8, 64]))
def test_the_width_is_the_longest_record_rounded_up(lengths, multiple):
    tokens = [Tokens((7,) * n, (False,) + (True,) * (n - 1)) for n in lengths]
    batch = collate(tokens, range(len(tokens)), multiple=multiple)
    width = batch["input_ids"].shape[1]
    assert width % multiple == 0
    assert max(lengths) <= width < max(lengths) + multiple
    assert batch["attention_mask"].sum(-1).tolist() == lengths
    assert batch["scored"].sum(-1).tolist() == [n - 1 for n in lengths]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_all_records_are_batched_once_and_say_which_they_are(budget):
    tokens = [Tokens((5, *range(6, 6 + n)), (False, *[True] * n)) for n in (3, 9, 1, 4, 9, 2)]
    found = {}
    for batch in token_batches(tokens, budget, side="left"):
        for row, index in enumerate(batch["index"].tolist()):
            found[index] = tuple(
                batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist()
            )
    assert found == {i: t.ids for i, t in enumerate(tokens)}


# ---------------------------------------------------------------------------------------------
# The order of training


@pytest.mark.parametrize("pairing", sorted(PAIRINGS))
@pytest.mark.parametrize("sizes", [(5, 3), (5, 5), (4, 11), (1, 7), (7, 1)])
def test_every_epoch_visits_each_forget_record_once_whatever_its_partner(pairing, sizes):
    forget, retain = records(sizes[0], "f"), records(sizes[1])
    pairs = plan(forget, retain, epochs=4, seed=3, pairing=pairing)
    assert len(pairs) == 4 * sizes[0]
    for epoch in epochs(pairs, sizes[0]):
        assert sorted(f for f, _ in epoch) == list(range(sizes[0]))
        assert all(0 <= r < sizes[1] for _, r in epoch)


@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_shuffle_uses_every_retain_record_before_any_repeats(few, many, times, seed):
    pairs = plan(records(few, "f"), records(many), epochs=times, seed=seed, pairing="shuffle")
    partners = [r for _, r in pairs]
    for start in range(0, len(partners) - many + 1, many):
        assert sorted(partners[start : start + many]) == list(range(many))
    rest = partners[len(partners) // many * many :]
    assert len(set(rest)) == len(rest)


def test_shuffle_is_anew_in_every_round():
    partners = [r for _, r in plan(records(8, "f"), records(8), epochs=3, seed=0)]
    assert len({tuple(partners[i : i + 8]) for i in (0, 8, 16)}) == 3


def test_cycle_takes_the_retain_set_in_its_own_order_over_and_over():
    pairs = plan(records(3, "f"), records(4), epochs=3, seed=5, pairing="cycle")
    assert [r for _, r in pairs] == [0, 1, 2, 3, 0, 1, 2, 3, 0]


@pytest.mark.parametrize("retain", [3, 5, 11])
def test_fixed_gives_a_record_the_same_partner_in_every_epoch(retain):
    pairs = plan(records(5, "f"), records(retain), epochs=4, seed=1, pairing="fixed")
    assert len(set(pairs)) == 5
    orders = [tuple(f for f, _ in epoch) for epoch in epochs(pairs, 5)]
    assert len(set(orders)) > 1
    used = Counter(r for _, r in set(pairs))
    assert max(used.values()) <= -(-5 // retain)


def test_random_draws_with_replacement():
    pairs = plan(records(30, "f"), records(30), epochs=2, seed=1, pairing="random")
    first, second = ([r for _, r in epoch] for epoch in epochs(pairs, 30))
    assert 10 < len(set(first)) < 30  # 19 are expected of 30 draws
    assert first != second
    often = plan(records(4000, "f"), records(4), epochs=1, seed=1, pairing="random")
    assert all(900 < n < 1100 for n in Counter(r for _, r in often).values())  # 4 sd: 110


def test_the_anchor_says_which_set_makes_an_epoch():
    pairs = plan(records(3, "f"), records(7), epochs=2, seed=0, anchor="retain")
    assert len(pairs) == 14
    for epoch in epochs(pairs, 7):
        assert sorted(r for _, r in epoch) == list(range(7))
    forget = [f for f, _ in pairs]
    assert all(sorted(forget[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))


@pytest.mark.parametrize("anchor", ["forget", "retain"])
def test_a_set_that_is_absent_is_minus_one(anchor):
    alone = plan(records(3, "f"), [], epochs=2, seed=0, anchor=anchor)
    assert sorted(alone) == [(0, -1), (0, -1), (1, -1), (1, -1), (2, -1), (2, -1)]
    other = plan([], records(2), epochs=1, seed=0, anchor=anchor)
    assert sorted(other) == [(-1, 0), (-1, 1)]


def test_weighted_domains_get_their_quota_whatever_their_size():
    retain = [*records(20, "a", domain=0, weight=1.0), *records(2, "b", domain=1, weight=3.0)]
    pairs = plan(records(8, "f"), retain, epochs=3, seed=4)
    for epoch in epochs(pairs, 8):
        assert sum(r < 20 for _, r in epoch) == 2  # a quarter
    drawn = [r for _, r in pairs]
    large, small = [r for r in drawn if r < 20], [r for r in drawn if r >= 20]
    assert len(set(large)) == 6  # none twice before all were used
    assert Counter(small) == {20: 9, 21: 9}
    firsts = {
        epoch[0][1] < 20 for epoch in epochs(plan(records(8, "f"), retain, epochs=9, seed=4), 8)
    }
    assert firsts == {True, False}  # the domains are mixed, not one after the other


@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=5), st.integers(1, 40))
def test_quotas_are_within_one_draw_of_the_weights(weights, draws):
    forget = [t for d, w in enumerate(weights) for t in records(draws, f"{d}-", domain=d, weight=w)]
    pairs = plan(forget, [], epochs=1, seed=0)
    assert len(pairs) == len(forget)
    counts = Counter(forget[f].domain for f, _ in pairs)
    for domain, weight in enumerate(weights):
        assert abs(counts[domain] - len(forget) * weight / sum(weights)) < 1


@pytest.mark.parametrize("pairing", sorted(PAIRINGS))
def test_the_seed_alone_decides_the_order(pairing):
    def planned(seed):
        return plan(records(9, "f"), records(9), epochs=2, seed=seed, pairing=pairing)

    torch.manual_seed(0)
    once = planned(0)
    torch.manual_seed(1)
    assert planned(0) == once
    assert planned(1) != once


def test_a_plan_for_more_epochs_begins_with_the_shorter_one():
    for pairing in PAIRINGS:
        short, long = (
            plan(records(5, "f"), records(7), epochs=e, seed=0, pairing=pairing) for e in (2, 5)
        )
        assert long[: len(short)] == short


@given(st.sets(st.integers(0, 19), min_size=2), st.integers(0, 9))
def test_leaving_records_out_does_not_reorder_those_that_stay(kept, seed):
    ids = [f"id{i}" for i in range(20)]
    places = sorted(kept)
    some = [places[i] for i in order(seed, "x", [ids[p] for p in places])]
    assert some == [i for i in order(seed, "x", ids) if i in kept]


def test_draws_are_even_and_depend_on_every_part_of_their_key():
    values = [uniform(0, "x", i) for i in range(2000)]
    assert len(set(values)) == 2000
    assert all(0 <= v < 1 for v in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03  # 4.6 sd
    assert (
        len({uniform(0, "a", 1), uniform(1, "a", 1), uniform(0, "b", 1), uniform(0, "a", 2)}) == 4
    )
    assert uniform("a", "bc") != uniform("ab", "c")


@pytest.mark.filterwarnings(TWO_CORES)
def test_order_and_partners_are_the_same_with_workers_and_from_the_middle(forget, retain):
    from tests.conftest import make_tokenizer
    from wagle.data.tokens import Encoder

    encoder = Encoder(make_tokenizer())
    gone, kept = (encoder.encode(read_records(rows, seed=0)) for rows in (forget, retain))
    planned = plan(gone, kept, epochs=2, seed=0)
    data = Pairs(planned, {"forget": gone}, {"retain": kept})

    def batches(source, workers):
        loader = DataLoader(source, batch_size=2, num_workers=workers, collate_fn=data.collate)
        return [
            (b["forget"]["index"].tolist(), b["retain"]["index"].tolist(), b["forget"]["input_ids"])
            for b in loader
        ]

    plain, parallel = batches(data, 0), batches(data, 4)
    assert [b[:2] for b in plain] == [b[:2] for b in parallel]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(plain, parallel, strict=True))
    assert [b[:2] for b in batches(Subset(data, range(6, 12)), 4)] == [b[:2] for b in plain[3:]]
    assert [pair for f, r, _ in plain for pair in zip(f, r, strict=True)] == data.pairs
    assert (
        Pairs(plan(gone, kept, epochs=2, seed=1), {"forget": gone}, {"retain": kept}).pairs
        != data.pairs
    )


def test_a_batch_holds_the_sets_that_have_records():
    forget, retain = records(3, "f"), records(4)
    both = Pairs([(2, 1), (0, 3)], {"forget": forget}, {"retain": retain})
    batch = both.collate([both[0], both[1]])
    assert batch["forget"]["index"].tolist() == [2, 0]
    assert batch["retain"]["index"].tolist() == [1, 3]
    assert batch["retain"]["input_ids"][:, 1].tolist() == [7, 9]
    assert len(both) == 2
    alone = Pairs([(1, -1)], {"forget": forget}, {})
    assert set(alone.collate([{"forget": 1, "retain": -1}])) == {"forget"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairing": "shufle"}, "unknown pairing 'shufle'; did you mean 'shuffle'"),
        ({"anchor": "forgot"}, "unknown anchor 'forgot'; did you mean 'forget'"),
        ({"forget": [], "retain": []}, "there is nothing to train on: both sets are empty"),
    ],
)
def test_wrong_plans_are_one_line_errors(change, message):
    given = {"forget": records(2, "f"), "retain": records(2), **change}
    forget, retain = given.pop("forget"), given.pop("retain")
    with pytest.raises(WagleError, match=message):
        plan(forget, retain, epochs=1, seed=0, **given)


# ---------------------------------------------------------------------------------------------
# Shares and widths by hand


@pytest.mark.parametrize(
    ("draws", "weights", "quotas"),
    [
        (7, [1, 2, 4], [1, 2, 4]),
        (3, [1, 1], [2, 1]),  # a tie: the earlier one
        (2, [1, 1, 1], [1, 1, 0]),
        (10, [0.1, 0.2, 0.7], [1, 2, 7]),
        (5, [3, 1], [4, 1]),  # 3.75 and 1.25: the larger remainder
        (0, [2, 1], [0, 0]),
        (4, [9], [4]),
        (1, [1e-9, 1], [0, 1]),
    ],
)
def test_quotas_go_by_the_largest_remainder(draws, weights, quotas):
    assert _quotas(draws, weights) == quotas


@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_quotas_add_up_and_are_never_a_whole_draw_away(weights, draws):
    quotas = _quotas(draws, weights)
    assert sum(quotas) == draws
    for weight, quota in zip(weights, quotas, strict=True):
        assert abs(quota - draws * weight / sum(weights)) < 1


def test_domains_that_are_not_weighed_are_drawn_by_size():
    retain = [*records(6, "a", domain=0, weight=2.0), *records(3, "b", domain=1, weight=None)]
    drawn = [r for _, r in plan(records(5, "f"), retain, epochs=1, seed=0)]  # 2 : 3
    assert sum(r < 6 for r in drawn) == 2


def test_a_batch_is_at_least_as_wide_as_asked_and_its_labels_stand_in_one_row():
    one = Tokens((5, 6, 7), (False, True, True), labels=(8, 9))
    other = Tokens((5, 6), (False, True), labels=(4,))
    batch = collate([one, other], [0, 1], least=9, multiple=4)
    assert batch["input_ids"].shape == (2, 12)
    assert batch["labels"].tolist() == [8, 9, 4]
    assert int(batch["scored"].sum()) == len(batch["labels"])
    assert "labels" not in collate([Tokens((5, 6), (False, True))], [0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_count_from_the_first_real_token(side):
    tokens = [Tokens((7,) * n, (False,) + (True,) * (n - 1)) for n in (2, 4)]
    batch = collate(tokens, [0, 1], side=side, multiple=1)
    real = batch["attention_mask"].bool()
    assert batch["position_ids"][0][real[0]].tolist() == [0, 1]
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3]
    assert int(batch["position_ids"].min()) == 0  # padding too: no position is negative


def test_a_batch_of_pairs_leaves_out_the_side_that_is_absent():
    sets = {"forget": records(2, "f"), "refusal": records(2, "n")}
    pairs = Pairs([(1, -1), (0, 2), (-1, 0)], sets, {"retain": records(3)})
    batch = pairs.collate([pairs[0], pairs[1], pairs[2]])
    assert batch["forget"]["index"].tolist() == batch["refusal"]["index"].tolist() == [1, 0]
    assert batch["retain"]["index"].tolist() == [2, 0]
    assert set(pairs.collate([pairs[0]])) == {"forget", "refusal"}
    assert pairs.collate([]) == {}
    assert len(pairs) == 3
