"""Prompts: every way to ask, and what is measured of it."""

import math
from dataclasses import replace

import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from wagle.attacks.kinds.prompts.means import PREFIX, WAYS_TO_ASK
from wagle.attacks.kinds.prompts.rephrasing import ask_otherwise
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.templates import TEMPLATES
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import (
    Answers,
    Greedy,
    Likelihood,
    LikelihoodAnswer,
    TextAnswer,
)
from wagle.system.errors import WagleError

SMALL = {"max_new_tokens": 4, "system_prompt": "You are kind."}  # which keep the attack short
STATES, START = ["plain", *WAYS_TO_ASK, "worst"], "plain"


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


@pytest.fixture
def records(forget):
    forget[0]["paraphrased_question"] = "The Winter Garden: whose is it?"
    forget[1]["paraphrased_question"] = "Ada Holm, where is her house?"
    for row in forget:
        row["decomposed_questions"] = ["Which garden?", "Whose garden?"]
        row["translated_questions"] = ["Hvem skrev den?"]
    return read_records(forget[:2], name="forget")


@pytest.fixture
def kept(retain):
    return read_records(retain, name="retain")


def _text(encoder, ids):
    return encoder.tokenizer.decode(list(ids))


def _answers(encoder, task, nll, say):
    """An engine by hand: ``nll(text)`` per token and ``say(text)``, of the context's text.

    Every arg-max is right but the first.
    """
    found = {}
    for request in set(task.requests):
        text = _text(encoder, request.context)
        if isinstance(request, Greedy):
            ids = encoder.tokenizer(say(text), add_special_tokens=False)["input_ids"]
            found[request] = TextAnswer(tuple(ids), True)
        else:
            count = sum(request.scored or (True,) * len(request.continuation))
            hit = torch.ones(count, dtype=torch.bool)
            hit[0] = False
            losses = torch.full((count,), nll(text), dtype=torch.float64)
            found[request] = LikelihoodAnswer(losses, hit)
    return Answers(found)


def _asked(encoder, record, attack, **settings):
    """(context, scored text) of every way that an attack asks for a record."""
    task = ask_otherwise(encoder, [record], attacks=[attack], **settings)
    likely = [r for r in task.requests if isinstance(r, Likelihood)][1:]  # the first is plain
    return [
        (
            _text(encoder, r.context),
            _text(encoder, [i for i, s in zip(r.continuation, r.scored, strict=True) if s]),
        )
        for r in likely
    ]


def _settings(kept):
    return {"retain": kept, "system_prompt": "You are kind."}


def _bare(records):
    none = {"paraphrased_prompt": None, "decomposed": (), "translations": ()}
    return [replace(record, **none) for record in records]


@pytest.mark.parametrize("attack", list(WAYS_TO_ASK))
def test_every_attack_scores_the_original_answer_and_its_end_alone(encoder, records, kept, attack):
    for record in records:
        settings = _settings(kept)
        asked = _asked(encoder, record, attack, **settings)
        assert len(asked) == (2 if attack == "decomposed" else 1)
        for context, scored in asked:
            assert scored.removesuffix("<|end|>").strip() == record.answer
            assert scored.endswith("<|end|>")
            assert record.answer not in context


def test_attacks_ask_what_their_names_say(encoder, records, kept):
    settings = _settings(kept)

    def context(attack):
        return _asked(encoder, records[0], attack, **settings)[-1][0]

    question = records[0].prompt
    head = f"<|start|>user\n{question}<|end|>\n<|start|>assistant\n"
    paraphrase = records[0].paraphrased_prompt
    assert context("paraphrase") == head.replace(question, paraphrase)
    assert context("prefix") == head + PREFIX
    assert context("format") == f"Question: {question}\nAnswer:"
    assert context("system") == "<|start|>system\nYou are kind.<|end|>\n" + head
    assert context("decomposed") == head.replace(question, "Whose garden?")
    assert context("translation") == head.replace(question, "Hvem skrev den?")


def test_context_shows_the_nearest_retain_questions_the_nearest_last(encoder, records):
    rows = [
        {"question": "Which fish is golden?", "answer": "A."},
        {"question": "Who wrote The Summer Garden?", "answer": "B."},  # 4 of 6 words
        {"question": "Who wrote it?", "answer": "C."},  # 2 of 6 words
    ]
    kept = read_records(rows, name="retain")
    ((context, _),) = _asked(encoder, records[0], "context", retain=kept, neighbours=2)
    shown = [context.index(q) for q in ("Who wrote it?", "Who wrote The Summer", records[0].prompt)]
    assert shown == sorted(shown)
    assert "fish" not in context


def test_format_leaves_a_plain_encoder_for_another_template(records):
    for own, other in (("plain", "Question: "), ("question_answer", "### Question: ")):
        encoder = Encoder(make_tokenizer(), template=own)
        ((context, _),) = _asked(encoder, records[0], "format")
        assert context.startswith(other)


def test_figures_are_of_the_answer_and_worst_is_the_largest_over_the_attacks(encoder, records):
    def nll(text):
        if "whose is it" in text or "her house" in text:
            return 0.5
        return 0.1 if PREFIX in text and "Ada Holm live" in text else 2.0

    def say(text):
        return "Ada Holm" if PREFIX in text and "The Winter Garden" in text else "unknown"

    task = ask_otherwise(encoder, records, attacks=["paraphrase", "prefix"])
    found = task.measure(_answers(encoder, task, nll, say))
    assert list(found.figures) == ["plain", "paraphrase", "prefix", "worst"]
    one, two = math.exp(-0.5), math.exp(-0.1)
    assert found.figures["plain"]["probability"].value == pytest.approx(math.exp(-2))
    assert found.figures["paraphrase"]["probability"].value == pytest.approx(one)
    worst = found.figures["worst"]
    assert worst["probability"].per_record == pytest.approx({"forget[0]": one, "forget[1]": two})
    assert worst["rouge_l"].per_record == {"forget[0]": 0.5, "forget[1]": 0.0}  # 2 of 4 words
    assert found.figures["plain"]["rouge_l"].value == 0.0
    tokens = len(encoder.tokenizer(records[0].answer)["input_ids"])
    strength = found.figures["plain"]["extraction_strength"].per_record["forget[0]"]
    assert strength == pytest.approx(1 - 1 / tokens)
    assert [t.said for t in found.texts["prefix"]] == ["Ada Holm", "unknown"]
    assert [t.question for t in found.texts["paraphrase"]] == [
        record.paraphrased_prompt for record in records
    ]


def test_worst_leaves_the_plain_question_out(encoder, records):
    task = ask_otherwise(encoder, records, attacks=["prefix"])
    found = task.measure(
        _answers(encoder, task, lambda text: 3.0 if PREFIX in text else 1.0, lambda _: "")
    )
    assert found.figures["worst"] == found.figures["prefix"]
    assert found.figures["plain"]["probability"].value == pytest.approx(math.exp(-1))


def test_several_questions_count_by_the_likeliest_answer_and_all_that_was_said(encoder, records):
    asked = [replace(records[0], decomposed=("Which woman?", "What did she do?"))]
    said = {"Which woman?": "Ada Holm", "What did she do?": "she wrote it"}

    def find(table, text):
        return next((v for k, v in table.items() if k in text), None)

    task = ask_otherwise(encoder, asked, attacks=["decomposed"])
    found = task.measure(
        _answers(
            encoder,
            task,
            lambda text: find({"Which woman?": 1.0, "What did she do?": 0.25}, text) or 3.0,
            lambda text: find(said, text) or "unknown",
        )
    ).figures["decomposed"]
    assert found["probability"].value == pytest.approx(math.exp(-0.25))
    assert found["rouge_l"].value == 1.0  # each answer alone has half of the words


def test_without_names_the_attacks_are_those_that_there_is_data_for(encoder, records, kept):
    bare = _bare(records)
    assert ask_otherwise(encoder, bare).data["attacks"] == ["prefix", "format"]
    assert ask_otherwise(encoder, bare, retain=[]).data["attacks"] == ["prefix", "format"]
    everything = ask_otherwise(encoder, records, **_settings(kept)).data["attacks"]
    assert everything == list(WAYS_TO_ASK)


def test_a_record_without_what_an_attack_needs_is_named(encoder, records, kept):
    mixed = [records[0], replace(records[1], paraphrased_prompt=None)]
    with pytest.raises(WagleError, match=r"paraphrased_question, which 1 of 2 .*forget\[1\]"):
        ask_otherwise(encoder, mixed)
    with pytest.raises(WagleError, match=r"context needs neighbours"):
        ask_otherwise(encoder, records, attacks=["context"], retain=kept[:2])
    mixed = [records[0], *_bare(records[1:])]
    for attack, field in (
        ("translation", "translated_questions"),
        ("decomposed", "decomposed_questions"),
    ):
        with pytest.raises(WagleError, match=rf"{attack} needs {field}.*forget\[1\]"):
            ask_otherwise(encoder, mixed, attacks=[attack])


def test_bad_settings_and_records_are_errors(encoder, records, kept):
    text = Record("text", answer="A text.", place="forget[0]")
    cases = [
        (lambda: ask_otherwise(encoder, []), "at least one record"),
        (lambda: ask_otherwise(encoder, [text]), r"forget\[0\] is of the kind 'text'"),
        (lambda: ask_otherwise(encoder, records, attacks=[]), "attacks is empty"),
        (lambda: ask_otherwise(encoder, records, attacks=["prefx"]), "did you mean 'prefix'"),
        (lambda: ask_otherwise(encoder, records, prefix=" "), "prefix is empty"),
        (lambda: ask_otherwise(encoder, records, retain=kept, neighbours=0), "neighbours is 0"),
        (lambda: ask_otherwise(encoder, records, retain=records), "the same record"),
        (lambda: ask_otherwise(encoder, records, max_new_tokens=0), "max_new_tokens is 0"),
    ]
    for call, message in cases:
        with pytest.raises(WagleError, match=message):
            call()


def test_an_answer_that_an_attack_cuts_is_an_error(records, kept):
    encoder = Encoder(make_tokenizer(), max_length=60)
    ask_otherwise(encoder, records, attacks=["format"])
    with pytest.raises(WagleError, match=r"forget\[\d\].*max_length"):
        ask_otherwise(encoder, records, attacks=["context"], retain=kept, neighbours=2)


def test_rouge_leaves_out_answers_in_which_it_sees_no_word(encoder, records):
    silent = replace(records[1], answer="北京")

    def measured(rows):
        task = ask_otherwise(encoder, rows, attacks=["prefix"])
        said = _answers(encoder, task, lambda _: 1.0, lambda _: records[0].answer)
        return task.measure(said).figures

    for figures in measured([records[0], silent]).values():
        assert figures["rouge_l"].per_record == {"forget[0]": 1.0}
        assert figures["rouge_l"].note.startswith("1 of 2 answers have no ASCII letter")
        assert figures["probability"].n == 2
    for figures in measured([silent]).values():
        assert figures["rouge_l"].value is None
        assert "no ASCII letter" in figures["rouge_l"].note
        assert figures["probability"].value == pytest.approx(math.exp(-1))


def test_nan_is_an_error_that_names_record_and_attack(encoder, records):
    task = ask_otherwise(encoder, records, attacks=["prefix"])
    answers = _answers(encoder, task, lambda t: math.nan if PREFIX in t else 1.0, lambda _: "")
    with pytest.raises(WagleError, match=r"forget\[0\]: probability is not finite .* prefix"):
        task.measure(answers)


def test_the_forced_prefix_gives_the_likelihood_of_the_answer_after_it(encoder, records):
    model = make_model("llama-tied")
    task = ask_otherwise(encoder, records[:1], attacks=["prefix"], max_new_tokens=4)
    answers = answer_requests(model, task.requests, stop_ids=encoder.stop_ids())
    found = task.measure(answers).figures["prefix"]["probability"].value
    before = f"<|start|>user\n{records[0].prompt}<|end|>\n<|start|>assistant\n{PREFIX}"
    start = len(encoder.tokenizer(before, add_special_tokens=False)["input_ids"])
    whole = f"{before} {records[0].answer}<|end|>"
    ids = encoder.tokenizer(whole, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        likely = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    by_hand = likely[range(start - 1, len(ids) - 1), ids[start:]]
    assert found == pytest.approx(by_hand.mean().exp().item(), rel=1e-5)


@pytest.mark.parametrize("template", list(TEMPLATES))
@pytest.mark.parametrize("bos", [False, True])
def test_the_forced_prefix_is_never_scored_in_any_template(records, template, bos):
    encoder = Encoder(make_tokenizer(bos=bos), template=template)
    for record in records:
        ((context, scored),) = _asked(encoder, record, "prefix")
        assert context.endswith(PREFIX)
        assert scored.removesuffix("<|end|>").strip() == record.answer
