import math
from dataclasses import replace

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS
from tests.unlearning.conftest import encoder, slow_nll, tokens, unlearn
from wagle.data.tokens import Tokens
from wagle.unlearning.watching import looks
from wagle.unlearning.watching.looks import LOOKED, look_at_set, make_looked, sample

WRONG = [
    {**OTHERS[0], "perturbed_answer": ["Ada Holm did.", "A painter in Oslo.", "The author did."]},
    {
        **OTHERS[1],
        "paraphrased_answer": "It is a lamp that can be carried.",
        "perturbed_answer": ["A prize.", "A kind of fish that lives near the sea."],
    },
    *OTHERS[2:],
]


def _records(rows, name="retain"):
    return wagle.read_records(rows, name=name)


def _looked(retain=WRONG, **more):
    forget = _records(RECORDS, "forget")
    return make_looked(encoder(), forget, _records(retain), whole=False, seed=0, **more)


def _figures(model, looked):
    return look_at_set(model, "retain", looked.sets["retain"], options=looked.options)


# ---------------------------------------------------------------------------------------------
# Figures of answers


def test_figures_are_means_over_records_of_the_mean_over_answer_tokens(model):
    with torch.no_grad():
        nll = slow_nll(model, tokens("forget"))
    got = look_at_set(model, "forget", tokens("forget"))
    assert got["forget.nll"] == pytest.approx(float(nll.mean()), rel=1e-5)
    assert got["forget.probability"] == pytest.approx(float(torch.exp(-nll).mean()), rel=1e-5)


def test_memorisation_is_that_of_the_answer_without_its_end(model):
    strengths, shares = [], []
    for token in tokens("forget"):
        with torch.no_grad():
            said = model(torch.tensor([token.ids])).logits[0].argmax(-1)[:-1]
        hits = (said == torch.tensor(token.ids[1:]))[len(token.context) - 1 :].tolist()
        hits = hits[: len(hits) - token.closed]
        needed = next(k for k in range(len(hits) + 1) if all(hits[k:]))
        strengths.append(1 - needed / len(hits))
        shares.append(sum(hits) / len(hits))
    got = look_at_set(model, "forget", tokens("forget"))
    assert any(token.closed for token in tokens("forget"))
    assert got["forget.extraction_strength"] == pytest.approx(sum(strengths) / len(strengths))
    assert got["forget.exact_memorization"] == pytest.approx(sum(shares) / len(shares))


def test_an_answer_that_is_given_back_whole_counts_as_whole_whatever_follows_it(model):
    ids = [5, 6, 7]
    with torch.no_grad():
        for _ in range(4):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        end = (int(model(torch.tensor([ids])).logits[0, -1].argmax()) + 1) % 400  # not what it says
    answer = Tokens((*ids, end), (False,) * 3 + (True,) * 5, closed=True)
    got = look_at_set(model, "forget", [answer])
    assert got["forget.extraction_strength"] == got["forget.exact_memorization"] == 1
    open_end = replace(answer, closed=False)
    got = look_at_set(model, "forget", [open_end])
    assert (got["forget.extraction_strength"], got["forget.exact_memorization"]) == (0, 0.8)


# ---------------------------------------------------------------------------------------------
# Wrong answers


def _slow_true_better(model, record):
    def mean(answer):
        with torch.no_grad():
            return float(slow_nll(model, [encoder().answer(record, record.prompt, answer)]))

    wrong = [mean(answer) for answer in record.perturbed_answers]
    log_ratio = mean(record.paraphrased_answer or record.answer) - sum(wrong) / len(wrong)
    return max(0.0, 1 - math.exp(log_ratio))


def test_true_better_is_the_mean_over_the_records_that_have_wrong_answers(model):
    model.get_input_embeddings().weight.data.mul_(8)  # so that answers differ in likelihood
    found = _figures(model, _looked())
    values = [_slow_true_better(model, record) for record in _records(WRONG)[:2]]
    assert max(values) > 0
    assert found["retain.true_better"] == pytest.approx(sum(values) / 2, rel=1e-4)
    probability = found["retain.probability"]
    harmonic = 2 * probability * found["retain.true_better"]
    harmonic /= probability + found["retain.true_better"]
    assert found["retain.utility_proxy"] == pytest.approx(harmonic, rel=1e-6)


def test_the_proxy_is_0_where_no_right_answer_beats_the_wrong_ones(model):
    rows = [{**OTHERS[0], "perturbed_answer": [OTHERS[0]["answer"]]}]
    looked = _looked(rows)
    same = looked.options[0]
    assert same.wrong[0].ids == looked.sets["retain"][0].ids
    found = _figures(model, looked)
    assert found["retain.true_better"] == found["retain.utility_proxy"] == 0


def test_wrong_answers_do_not_change_the_figures_of_the_answers(model):
    plain = look_at_set(model, "retain", tokens("retain"))
    assert _looked(OTHERS).options == {}
    assert _figures(model, _looked(OTHERS)) == plain
    assert _figures(model, _looked(wrong_answers=False)) == plain
    found = _figures(model, _looked())
    assert {k: found[k] for k in plain} == pytest.approx(plain, rel=1e-5)
    assert found.keys() - plain.keys() == {"retain.true_better", "retain.utility_proxy"}


def test_the_figures_do_not_depend_on_what_runs_together(model, monkeypatch):
    found = _figures(model, _looked())
    monkeypatch.setattr(looks, "EVAL_TOKENS", 1)  # every answer alone
    assert _figures(model, _looked()) == pytest.approx(found, rel=1e-5)


def test_a_question_runs_once_for_all_of_its_answers(model):
    seen = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, args, __: seen.append(args[0].numel())
    )
    row = {**OTHERS[1], "perturbed_answer": [f"{OTHERS[1]['answer']} It{i}." for i in range(9)]}
    looked = _looked([row])
    _figures(model, looked)
    handle.remove()
    answers = [looked.sets["retain"][0], *looked.options[0].wrong]
    question = len(answers[0].context)
    padded = -(-max(len(t.ids) for t in answers) // 8) * 8
    shared = question - 1  # its last token predicts each answer's first
    assert seen == [shared, len(answers) * (padded - shared)]


# ---------------------------------------------------------------------------------------------
# Which records


def _many(count):
    return [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(count)]


def test_at_most_64_records_of_each_set_are_looked_at_but_all_forget_records_beside_a_reference():
    forget, retain = (_records(_many(LOOKED + 6), name) for name in ("forget", "retain"))
    few, whole = (
        make_looked(encoder(), forget, retain, whole=whole, seed=0) for whole in (False, True)
    )
    assert {name: len(some) for name, some in few.sets.items()} == {"forget": 64, "retain": 64}
    assert {name: len(some) for name, some in whole.sets.items()} == {"forget": 70, "retain": 64}
    assert make_looked(encoder(), forget, [], whole=False, seed=0).sets.keys() == {"forget"}


def test_the_records_are_a_pure_function_of_seed_and_record():
    forget = _records(_many(LOOKED + 6), "forget")

    def chosen(records, seed=0):
        looked = make_looked(encoder(), records, [], whole=False, seed=seed)
        return {token.ids for token in looked.sets["forget"]}

    assert chosen(forget) == chosen(_records(_many(LOOKED + 6)[::-1], "forget"))
    assert chosen(forget) != chosen(forget, seed=1)


def test_a_sample_is_drawn_by_seed_and_keeps_its_order():
    every = tokens("retain")
    assert sample(every, 8, 0) == list(every)
    some = [every.index(t) for t in sample(every, 4, 0)]
    assert len(some) == 4
    assert some == sorted(some)
    others = [[every.index(t) for t in sample(every, 4, seed)] for seed in range(5)]
    assert others[0] == some
    assert len({tuple(o) for o in others}) > 1


# ---------------------------------------------------------------------------------------------
# In training


def test_looks_at_all_figures_have_the_utility_proxy_and_looks_at_the_rules_do_not(model):
    retain = {"retain": WRONG, "max_steps": 4, "check_every": 1}
    result = unlearn(
        model, **retain, evaluate_every=2, stop_when="retain.probability < 0.01 * before"
    )
    assert result.stopped == "end"
    with_proxy = [h["step"] for h in result.history if "retain.utility_proxy" in h]
    assert with_proxy == [0, 2, 4]
    assert [h["step"] for h in result.history if "retain.probability" in h] == [0, 1, 2, 3, 4]
    last = result.history[-1]
    assert last["retain.true_better"] == pytest.approx(
        _figures(model, _looked())["retain.true_better"], rel=1e-4, abs=1e-9
    )


def test_a_rule_may_name_the_utility_proxy(model):
    rule = "retain.utility_proxy >= 0"
    result = unlearn(model, retain=WRONG, stop_when=rule, check_every=1, max_steps=3)
    assert result.stopped == "retain.utility_proxy >= 0.0"
    assert len(result.history) == 1


def test_without_wrong_answers_there_is_no_proxy(model):
    result = unlearn(model, evaluate_every=1)
    assert all("retain.nll" in h and "retain.true_better" not in h for h in result.history)
    result = unlearn(model, retain=WRONG, evaluate_every=1, wrong_answers=False)
    assert all("retain.nll" in h and "retain.utility_proxy" not in h for h in result.history)
