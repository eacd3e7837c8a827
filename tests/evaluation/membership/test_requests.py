"""What membership attacks ask: of invented texts and of the answers of records; what words tell."""

from typing import get_args

import pytest
import torch

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Likelihood,
    LikelihoodAnswer,
    NormAnswer,
)
from wagle.evaluation.membership.requests import (
    FOUR,
    attack_table,
    headline_share,
    probe_answers,
    probe_text,
)
from wagle.evaluation.membership.sets import compare_records, compare_sets, told_by_words
from wagle.metrics.membership import Trace, zlib_size
from wagle.recipe.values import AttackName
from wagle.system.errors import WagleError

# Attacks


def test_the_usual_attacks_need_forward_passes_of_one_model_only():
    assert list(attack_table()) == ["loss", "zlib", "zlib_sum", "lower", "min_k", "min_k++"]


def test_further_shares_of_tokens_have_names_of_their_own():
    table = attack_table(["loss", "min_k"], [0.4, 0.2, 0.125])
    assert list(table) == ["loss", "min_k", "min_k_20", "min_k_12_5"]
    trace = Trace("forget[0]", torch.tensor([4.0, 1.0, 3.0, 2.0, 0.0], dtype=torch.float64))
    assert table["min_k"].score(trace) == 3.5
    assert table["min_k_20"].score(trace) == 4.0


@pytest.mark.parametrize(
    ("names", "shares", "message"),
    [
        (["min_j"], [0.4], "unknown membership attack 'min_j'; did you mean 'min_k'"),
        (["reference"], [0.4], "comes with a reference model"),
        ([], [0.4], "attacks or k is empty"),
        (["min_k"], [], "attacks or k is empty"),
    ],
)
def test_attacks_that_cannot_be_made_are_refused(names, shares, message):
    with pytest.raises(WagleError, match=message):
        attack_table(names, shares)


# Probes


def encode(text):
    return [9, *map(ord, text)]


def test_a_probe_asks_for_every_token_once_and_only_for_what_the_attacks_need():
    probe = probe_text("forget[0]", "AbcDe", encode, attack_table(["loss"]), 4)
    assert [r.context + r.continuation for r in probe.own] == [
        (9, *map(ord, "Abc")),
        tuple(map(ord, "cDe")),
    ]
    assert probe.requests == list(probe.own)
    assert not any(request.moments for request in probe.own)


def test_a_probe_of_every_attack_gives_its_trace():
    table = attack_table(["lower", "min_k++", "gradnorm"])
    probe = probe_text("forget[0]", "AbC", encode, table, 3)
    first, second = probe.own
    assert first.moments
    assert probe.gradient == GradientNorm((9,), tuple(map(ord, "Ab")))
    answers = Answers({probe.gradient: NormAnswer(3.0, 0.5)})
    answers.found[first] = LikelihoodAnswer(
        torch.tensor([1.0, 2.0]), torch.tensor([True, True]), torch.tensor([[1.0, 2], [3, 4]])
    )
    answers.found[second] = LikelihoodAnswer(
        torch.tensor([6.0]), torch.tensor([True]), torch.tensor([[5.0, 6]])
    )
    for request, values in zip(probe.lowered, ([1.0, 1.0], [4.0]), strict=True):
        assert isinstance(request, Likelihood)
        answers.found[request] = LikelihoodAnswer(torch.tensor(values), torch.tensor([True]))
    trace = probe.trace(answers)
    assert trace.token_nll.tolist() == [1, 2, 6]
    assert trace.moments.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (trace.lower, trace.gradient) == (2.0, 3.0)
    assert probe.trace(answers, mean_norm=True).gradient == 0.5


def test_a_text_of_one_token_is_refused_by_name():
    with pytest.raises(WagleError, match=r"forget\[0\] is a single token"):
        probe_text("forget[0]", "", encode, attack_table(["loss"]), 4)


def test_a_text_of_which_lower_case_leaves_one_token_is_refused_by_name():
    with pytest.raises(WagleError, match=r"forget\[0\] is a single token"):
        probe_text(
            "forget[0]", "HI", lambda t: [1] if t == "hi" else [2, 3], attack_table(["lower"]), 4
        )


def test_the_share_of_the_headline_is_the_first():
    assert headline_share(attack_table(), None) == 0.4
    assert headline_share(attack_table(FOUR, [0.2, 0.4]), [0.2, 0.4]) == 0.2
    assert headline_share(attack_table(["loss"]), [0.2]) is None
    assert headline_share({}, None) is None


def test_a_recipe_knows_the_attacks_that_there_are():
    assert set(get_args(AttackName)) == {*attack_table(), "gradnorm"}


# Probes of answers

EVERY = ["loss", "zlib", "lower", "min_k", "min_k++", "gradnorm"]
CHAT = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good DAY."},
    {"role": "user", "content": "Who wrote it?"},
    {"role": "assistant", "content": "Ada HOLM wrote it."},
]


def probe_of(row, attacks=EVERY, **encoder):
    records = read_records([row], name="forget")
    encoder = Encoder(make_tokenizer(**encoder))
    (probe,) = probe_answers(records, encoder.encode, attack_table(attacks))
    return probe, encoder.tokenizer


def scored(request):
    marks = request.scored or (True,) * len(request.continuation)
    return [i for i, mark in zip(request.continuation, marks, strict=True) if mark]


def test_an_answer_counts_without_its_end_and_is_lowered_after_the_question_as_it_is():
    probe, tokenizer = probe_of({"question": "WHO wrote it?", "answer": "Ada HOLM wrote it."})
    (own,), (low,) = probe.own, probe.lowered
    assert (own.moments, low.moments, probe.closed) == (True, False, True)
    assert scored(own)[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(scored(own)[:-1]) == "Ada HOLM wrote it."
    assert tokenizer.decode(scored(low)) == "ada holm wrote it."
    assert own.context == low.context
    assert "WHO" in tokenizer.decode(low.context)
    gradient = probe.gradient
    assert (gradient.context, gradient.continuation) == (own.context, own.continuation[:-1])
    assert probe.size == zlib_size("Ada HOLM wrote it.")
    assert probe.requests == [own, low, gradient]


def test_a_trace_of_an_answer_is_that_of_one_plain_pass_without_the_end():
    probe, _ = probe_of({"question": "Who wrote it?", "answer": "Ada HOLM wrote it."})
    model = make_model("llama-tied")
    trace = probe.trace(answer_requests(model, probe.requests, stop_ids=[0]))
    ids = torch.tensor([probe.own[0].context + probe.own[0].continuation[:-1]])
    start = len(probe.own[0].context)
    with torch.enable_grad():
        logp = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        mean = -logp.gather(-1, ids[0, start:, None]).mean()
        mean.backward()
    norm = sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5
    assert trace.mean == pytest.approx(mean.item(), rel=1e-5)
    assert len(trace.token_nll) == len(trace.moments) == ids.shape[1] - start
    assert trace.gradient == pytest.approx(norm, rel=1e-4)
    assert trace.lower > 0


def test_of_a_chat_the_scored_turns_count():
    probe, tokenizer = probe_of({"messages": CHAT}, ["zlib", "lower"])
    (low,) = probe.lowered
    said = tokenizer.decode(low.continuation)
    assert "good day." in said
    assert "Who wrote it?" in said  # asked as it is
    assert said.endswith("ada holm wrote it.")
    assert probe.size == zlib_size("Good DAY.\nAda HOLM wrote it.")
    given = {"prompt": CHAT[:3], "completion": CHAT[3:]}
    probe, tokenizer = probe_of(given, ["zlib", "lower"])
    assert "Good DAY." in tokenizer.decode(probe.lowered[0].context)
    assert probe.size == zlib_size("Ada HOLM wrote it.")


def test_a_long_text_is_probed_in_windows_after_its_first_token():
    text = " ".join(row["answer"] for row in RECORDS)
    records = read_records([{"text": text}], name="forget")
    encoder = Encoder(make_tokenizer(), max_length=16)
    (probe,) = probe_answers(records, encoder.encode, attack_table(["loss", "lower"]))
    ids = encoder.tokenizer(text)["input_ids"]
    assert len(probe.own) > 2
    assert probe.closed
    answers = Answers(
        {r: LikelihoodAnswer(torch.ones(len(scored(r))), None) for r in probe.requests}
    )
    # the first token of a window is its context: it follows nothing
    assert len(probe.trace(answers).token_nll) == len(ids) - len(probe.own)
    assert probe.own[0].context == (ids[0],)


def test_records_of_tokens_take_the_attacks_that_need_no_text():
    row = {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}
    probe, _ = probe_of(row, ["loss", "min_k", "gradnorm"])
    assert probe.size is None
    assert scored(probe.own[0]) == [7, 8]
    for attack in ("zlib", "lower"):
        with pytest.raises(
            WagleError, match=rf"forget\[0\] is tokens, .* {attack} needs text; name"
        ):
            probe_of(row, [attack])


def test_a_record_of_which_only_the_end_is_scored_is_named():
    with pytest.raises(WagleError, match=r"forget\[0\] has no scored token but its EOS"):
        probe_of({"text": "a"}, ["loss"])


# The two sets


def test_words_that_tell_the_sets_apart_are_said_aloud_once(caplog):
    told_by_words.cache_clear()
    sets = {
        name: {f"{name}[{i}]": f"{words} number {i}" for i in range(12)}
        for name, words in (("forget", "harbour ship sea"), ("holdout", "kitchen bread oven"))
    }
    assert compare_sets(sets, 0, words=False) is None
    assert not caplog.records
    for _ in range(2):
        assert "words alone tell the forget texts" in compare_sets(sets, 0)
    assert caplog.text.count("words alone tell the forget texts") == 1  # once for all evaluations


def test_what_is_not_looked_at_is_said(monkeypatch):
    few = {"forget": {"forget[0]": "a b"}, "holdout": {"holdout[0]": "c d", "holdout[1]": "e"}}
    assert compare_sets(few, 0).startswith("not checked whether words alone tell the sets apart")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    more = {name: {f"{name}[{i}]": f"{name} {i}" for i in range(4)} for name in few}
    assert "needs scikit-learn" in compare_sets(more, 0)


def test_records_of_every_kind_are_compared_by_all_they_hold():
    forget = read_records([RECORDS[0], {"messages": CHAT}], name="forget")
    new = read_records([OTHERS[0], {"text": "Snow."}], name="holdout")
    assert compare_records(forget, new, 0).startswith("answers are scored without their EOS")
    again = read_records([{"text": "Snow."}, {"messages": CHAT}], name="holdout")
    with pytest.raises(
        WagleError, match=r"forget\[1\] and holdout\[1\] are the same text \(1 shared"
    ):
        compare_records(forget, again, 0)
    ids = [{"input_ids": [5, i], "labels": [-100, i]} for i in (6, 7)]
    one, other = (
        read_records([row], name=n) for row, n in zip(ids, ("forget", "holdout"), strict=True)
    )
    assert "not checked" in compare_records(one, other, 0)
