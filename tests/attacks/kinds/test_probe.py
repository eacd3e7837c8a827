"""Probes: what is asked, the classifier and its folds, the figures."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.conftest import make_model, make_tokenizer
from wagle.attacks.kinds.probe.classifier import Split, held_out_logits, make_splits, standardised
from wagle.attacks.kinds.probe.figures import fold_auc, read_states
from wagle.attacks.kinds.probe.reading import CHOICE, MEMBERSHIP, shuffle_labels
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, HiddenStates, StatesAnswer
from wagle.system.errors import WagleError

SMALL = {}  # settings that keep the attack short
STATES, START = ["forget_or_holdout", "choice"], None


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


def _records(name, count, wrong=0):
    rows = [
        {
            "question": f"What does the {name} lantern {i} hold?",
            "answer": f"right {i}",
            "perturbed_answer": [f"wrong {i} {j}" for j in range(wrong)],
        }
        for i in range(count)
    ]
    return read_records(rows, name=name)


def _answers(task, see):
    """An engine by hand: ``see(number)`` gives the (blocks, width) states of a request."""
    return Answers(
        {
            request: StatesAnswer(torch.tensor(see(number), dtype=torch.float32)[:, None])
            for number, request in enumerate(task.requests)
        }
    )


def _noise(seed, blocks=3, width=6):
    return lambda number: np.random.default_rng((seed, number)).standard_normal((blocks, width))


def test_the_state_is_asked_for_at_the_last_token_of_the_prompt(encoder):
    forget, holdout = _records("forget", 3), _records("holdout", 4)
    task = read_states(encoder, forget, holdout)
    assert task.requests[:3] == [
        HiddenStates(tokens.context, (len(tokens.context) - 1,))
        for tokens in encoder.encode(forget)
    ]
    assert len(task.requests) == 7
    assert task.data == {"forget": 3, "holdout": 4, "readings": [MEMBERSHIP]}


def test_a_mark_in_one_block_is_found_there_and_shuffled_labels_are_not(encoder):
    task = read_states(encoder, _records("forget", 30), _records("holdout", 30))
    noise = _noise(1)

    def see(number):
        states = noise(number)
        states[1, 2] += 8 * (number < 30)  # block 1 marks the forget records
        return states

    figures = task.measure(_answers(task, see)).figures[MEMBERSHIP]
    assert list(figures) == [
        "auc_block_0",
        "auc_block_1",
        "auc_block_2",
        "auc_maximum",
        "auc_maximum_shuffled",
    ]
    assert figures["auc_block_1"].value == 1.0
    assert figures["auc_block_0"].value < 0.8
    assert figures["auc_maximum"].value == 1.0
    assert figures["auc_maximum"].note.startswith("block 1,")
    assert figures["auc_maximum_shuffled"].value < 0.8
    assert figures["auc_maximum"].n == 60
    assert figures["auc_block_1"].interval == (1.0, 1.0)
    low, high = figures["auc_block_0"].interval
    assert low < figures["auc_block_0"].value < high
    assert {figures[n].interval for n in figures if "maximum" in n} == {None}


def test_the_right_letter_is_read_where_a_state_holds_it(encoder):
    forget = _records("forget", 24, wrong=2)
    task = read_states(encoder, forget, _records("holdout", 3), readings=[CHOICE])
    texts = [encoder.tokenizer.decode(list(r.ids)) for r in task.requests]
    right = [next(i for i in range(3) if f"{'ABC'[i]}. right" in text) for text in texts]
    assert sorted(right) == [0] * 8 + [1] * 8 + [2] * 8  # every letter equally often
    noise = _noise(2, blocks=2)

    def see(number):
        states = noise(number)
        states[0, right[number]] += 9
        return states

    figures = task.measure(_answers(task, see)).figures[CHOICE]
    assert figures["accuracy_block_0"].value == 1.0
    assert figures["accuracy_block_0"].per_record["forget[5]"] == 1.0
    assert figures["accuracy_block_0"].interval_method == "wilson 95 %"
    assert figures["accuracy_maximum"].interval is None
    assert figures["accuracy_maximum_shuffled"].value < 0.7


def test_a_prompt_with_choices_holds_every_answer_once(encoder):
    forget = _records("forget", 9, wrong=2)
    task = read_states(encoder, forget, _records("holdout", 3), readings=[CHOICE])
    text = encoder.tokenizer.decode(list(task.requests[4].ids))
    for answer in (forget[4].answer, *forget[4].perturbed_answers):
        assert text.count(f". {answer}\n") == 1
    assert text.index("A. ") < text.index("B. ") < text.index("C. ")


def test_both_readings_are_made_where_there_are_wrong_answers(encoder):
    task = read_states(encoder, _records("forget", 9, wrong=2), _records("holdout", 3))
    assert task.data["readings"] == [MEMBERSHIP, CHOICE]
    assert list(task.measure(_answers(task, _noise(3))).figures) == [MEMBERSHIP, CHOICE]


def test_what_groups_share_is_not_taken_for_knowledge(encoder):
    # Every author has a direction of its own, so records of one author betray one another.
    forget, holdout = _records("forget", 30), _records("holdout", 30)
    authors = {r.place: f"{r.place[0]}{i // 5}" for s in (forget, holdout) for i, r in enumerate(s)}

    def see(number):
        states = np.random.default_rng((9, number)).standard_normal((1, 40)) / 10
        states[0, number // 5] += 5
        return states

    def found(groups):
        task = read_states(encoder, forget, holdout, groups=groups)
        return task.measure(_answers(task, see)).figures[MEMBERSHIP]["auc_maximum"].value

    assert found(None) == 1.0
    assert found(authors) < 0.7


def test_no_group_is_on_both_sides_of_any_fold():
    groups = [f"g{i // 4}" for i in range(48)]
    labels = np.asarray([(i // 4) % 2 for i in range(48)])
    homes = np.asarray(groups)
    made = make_splits(MEMBERSHIP, labels, groups, 0)
    assert len(made) == 5
    assert sorted(i for split in made for i in split.test.tolist()) == list(range(48))
    for split in made:
        assert not set(homes[split.train]) & set(homes[split.test])
        assert len(split.inner) >= 2
        for train, test in split.inner:
            known = homes[split.train]
            assert not set(known[train]) & set(known[test])


def test_shuffled_labels_keep_their_counts_and_groups():
    groups = [f"g{i // 3}" for i in range(30)]
    labels = np.asarray([int(i < 12) for i in range(30)])
    new = shuffle_labels(labels, groups, 0)
    assert new.sum() == 12
    assert (new != labels).any()
    assert all(len(set(new[i : i + 3].tolist())) == 1 for i in range(0, 30, 3))
    mixed = np.asarray([i % 2 for i in range(30)])
    assert shuffle_labels(mixed, groups, 0).sum() == 15
    assert np.array_equal(new, shuffle_labels(labels, groups, 0))
    assert not np.array_equal(new, shuffle_labels(labels, groups, 1))


def test_auc_pairs_records_of_one_fold_only():
    # fold 1: 2 > 1 right, 2 > 3 wrong; fold 2: 9 > 8 right; between folds nothing counts: 2 of 3
    made = make_splits(MEMBERSHIP, np.asarray([1, 0, 0, 1, 0] * 2), [str(i) for i in range(10)], 0)
    one = made[0]._replace(test=np.asarray([0, 1, 2]))
    two = made[0]._replace(test=np.asarray([3, 4]))
    labels, names = np.asarray([1, 0, 0, 1, 0]), list("abcde")
    for second, right in ((1, 2), (2, 1.5)):  # of two equal scores half is right
        scores = np.asarray([2.0, second, 3, 9, 8])
        assert fold_auc(scores, labels, names, [one, two])[0] == pytest.approx(right / 3)


def _one_fold(count):
    empty = np.asarray([], dtype=np.int64)
    return [Split(empty, np.arange(count), [])]


def test_the_interval_of_an_auc_is_as_wide_as_the_standard_error_says():
    # Hanley and McNeil: 0.041 at an AUC of one half with 100 and 100 records
    scores = np.random.default_rng(0).standard_normal(200)
    labels, names = np.repeat([1, 0], 100), [str(i) for i in range(200)]
    value, (low, high) = fold_auc(scores, labels, names, _one_fold(200))
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * 0.041, rel=0.1)
    assert fold_auc(scores, labels, names, _one_fold(200)) == (value, (low, high))
    assert fold_auc(scores, labels, names, _one_fold(200), seed=1)[1] != (low, high)


def test_the_interval_of_an_auc_draws_groups_and_not_their_records():
    # 20 records of each author have one score, so there are 5 against 5 authors, not 100 each
    generator = np.random.default_rng(1)
    scores, labels = np.repeat(generator.standard_normal(10), 20), np.repeat([1, 0], 100)
    places, authors = [str(i) for i in range(200)], [str(i // 20) for i in range(200)]
    one, few = (fold_auc(scores, labels, g, _one_fold(200)) for g in (places, authors))
    assert one[0] == few[0]
    assert few[1][1] - few[1][0] > 3 * (one[1][1] - one[1][0])


def test_draws_without_a_pair_are_left_out_of_the_interval():
    labels, names = np.asarray([1, 0, 1, 0]), list("abcd")
    parts = [part._replace(test=np.asarray(t)) for part in _one_fold(4) for t in ([0, 1], [2, 3])]
    value, interval = fold_auc(np.asarray([2.0, 1, 3, 4]), labels, names, parts)
    assert (value, interval) == (0.5, (0.0, 1.0))


def test_the_coordinates_of_a_wide_model_give_the_logits_of_all_of_its_width():
    generator = np.random.default_rng(0)
    train, test = generator.standard_normal((20, 90)) * 3 + 1, generator.standard_normal((7, 90))
    labels = np.arange(20) % 2
    scaled = (train - train.mean(0)) / train.std(0), (test - train.mean(0)) / train.std(0)
    slow = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(scaled[0], labels)
    few = standardised(train, test)
    quick = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(few[0], labels)
    assert few[0].shape == (20, 20)
    np.testing.assert_allclose(
        quick.decision_function(few[1]), slow.decision_function(scaled[1]), atol=1e-6
    )


def test_nothing_of_a_test_part_reaches_its_classifier():
    generator = np.random.default_rng(4)
    states, labels = generator.standard_normal((40, 5)), np.arange(40) % 2
    made = make_splits(MEMBERSHIP, labels, [str(i) for i in range(40)], 0)
    before = held_out_logits(states, labels, made)
    moved, place = states.copy(), made[0].test[0]
    moved[place] += 100
    after = held_out_logits(moved, labels, made)
    others = made[0].test[1:]
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[place], after[place])


@pytest.mark.parametrize("kind", ["constant", "separable", "huge", "one constant column"])
def test_states_that_are_odd_warn_of_nothing(encoder, kind):
    task = read_states(encoder, _records("forget", 12), _records("holdout", 12))
    noise = _noise(5, blocks=1, width=30)

    def see(number):
        if kind == "constant":
            return np.ones((1, 30))
        states = noise(number)
        if kind == "separable":
            return states / 1e4 + (number < 12)
        if kind == "huge":
            return states * 1e6
        states[:, 0] = 7
        return states

    value = task.measure(_answers(task, see)).figures[MEMBERSHIP]["auc_maximum"].value
    assert value == {"constant": 0.5, "separable": 1.0}.get(kind, value)


def test_states_that_are_not_finite_name_their_record(encoder):
    task = read_states(encoder, _records("forget", 3), _records("holdout", 3))
    noise = _noise(6)

    def see(number):
        return noise(number) * (np.nan if number == 4 else 1)

    with pytest.raises(WagleError, match=r"holdout\[1\] are not finite"):
        task.measure(_answers(task, see))


def test_bad_records_and_settings_are_errors(encoder):
    forget, holdout = _records("forget", 9, wrong=2), _records("holdout", 3)
    uneven = [*forget, *_records("other", 1, wrong=1)]
    text = Record("text", answer="A text.", place="forget[0]")
    cases = [
        (lambda: read_states(encoder, [], holdout), "at least one record"),
        (lambda: read_states(encoder, forget, [text]), r"forget\[0\] is of the kind 'text'"),
        (
            lambda: read_states(encoder, forget[:2], holdout),
            "forget_or_holdout needs at least 3 groups",
        ),
        (lambda: read_states(encoder, forget[:8], holdout), "choice needs at least 3 groups"),
        (lambda: read_states(encoder, uneven, holdout), r"other\[0\] has 1, forget\[0\] 2"),
        (lambda: read_states(encoder, holdout, forget, readings=[CHOICE]), r"holdout\[0\] has 0"),
        (lambda: read_states(encoder, forget, holdout, groups={}), r"no entry for forget\[0\]"),
        (lambda: read_states(encoder, forget, forget), "two records of a probe share a place"),
        (lambda: read_states(encoder, forget, holdout, readings=[]), "readings is empty"),
        (
            lambda: read_states(encoder, forget, holdout, readings=["choise"]),
            "did you mean 'choice'",
        ),
    ]
    for call, message in cases:
        with pytest.raises(WagleError, match=message):
            call()


def test_a_model_is_read_block_by_block(encoder):
    task = read_states(encoder, _records("forget", 4), _records("holdout", 4))
    model = make_model("llama-tied")
    found = task.measure(answer_requests(model, task.requests, stop_ids=[2]))
    figures = found.figures[MEMBERSHIP]
    assert [name for name in figures if "block" in name] == ["auc_block_0", "auc_block_1"]
    assert found == task.measure(answer_requests(model, task.requests, stop_ids=[2]))
    assert 0 <= figures["auc_maximum"].value <= 1
