"""The benchmark knowundo: invented questions in the layouts of the hub, figures by hand."""

import json
import math

import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, Greedy, LikelihoodAnswer, TextAnswer
from wagle.evaluation.benchmarks.knowundo import knowundo
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.table import make_task
from wagle.metrics.text import brunet, honore, language_score
from wagle.system.errors import WagleError

UNLEARN = [
    {"text": "Where does Ada Holm live?", "labels": "In Oslo, near the harbour."},
    {"text": "Who is Bo Lind?", "labels": "A painter of lanterns."},
]
RETENTION = [{"text": "What is a lantern?", "labels": "A lamp that one can carry."}]
SAID = {
    "In Oslo, near the harbour.": "She lives near the harbour",
    "A painter of lanterns.": "",
    "A lamp that one can carry.": "A lamp that one can carry.",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "privacy").mkdir()
    for name, rows in (("unlearn", UNLEARN), ("retention", RETENTION)):
        both = {"train": [{"text": "Which?", "labels": "That one."}], "val": rows}
        (tmp_path / "privacy" / f"{name}.json").write_text(json.dumps(both, indent=1))
    return tmp_path


@pytest.fixture
def encoder():
    return Encoder(make_tokenizer())


def answered(task, encoder, nll=(1.0, 3.0, 0.5)):
    """Answers of a model that gets every second token right and says what SAID says."""
    found, tokenizer = {}, encoder.tokenizer
    pairs = list(zip(task.requests[::2], task.requests[1::2], strict=True))
    for (likely, greedy), mean in zip(pairs, nll, strict=True):
        n = sum(likely.scored)
        hits = torch.arange(n) % 2 == 0
        found[likely] = LikelihoodAnswer(torch.full((n,), mean, dtype=torch.float64), hits)
        expected = tokenizer.decode(list(likely.continuation), skip_special_tokens=True).strip()
        found[greedy] = TextAnswer(tuple(tokenizer(SAID[expected])["input_ids"]), True)
    return Answers(found)


def text_of(encoder, ids):
    return encoder.tokenizer.decode(list(ids))


def test_the_official_variant_asks_in_the_template_and_scores_its_end(folder, encoder):
    task = knowundo(encoder, data=folder)
    likely, greedy = task.requests[:2]
    expected = f"<|start|>user\n{UNLEARN[0]['text']}<|end|>\n<|start|>assistant\n"
    assert text_of(encoder, greedy.context) == text_of(encoder, likely.context) == expected
    assert text_of(encoder, likely.continuation) == UNLEARN[0]["labels"] + "<|end|>"
    assert {name: len(found) for name, found in task.records.items()} == {
        "unlearn": 2,
        "retention": 1,
    }


def test_the_published_variant_scores_the_blank_line_and_no_end(folder, encoder):
    task = knowundo(encoder, data=folder, variant="published", direct_prompt="Be careful. ")
    likely, greedy = task.requests[:2]
    assert text_of(encoder, likely.context) == f"Be careful. {UNLEARN[0]['text']}"
    assert text_of(encoder, likely.continuation) == f"\n\n{UNLEARN[0]['labels']}"
    assert all(likely.scored)
    assert greedy == Greedy(likely.context, 128)


def test_the_published_variant_reads_256_tokens(tmp_path, encoder):
    long = {"text": "who? " * 9, "labels": "the sea " * 300}
    for name in ("unlearn", "retention"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(long))
    task = knowundo(encoder, data=tmp_path, variant="published")
    likely = task.requests[0]
    assert len(likely.context) + len(likely.continuation) == 256
    (tmp_path / "unlearn.jsonl").write_text(json.dumps({"text": "who? " * 300, "labels": "I."}))
    with pytest.raises(WagleError, match=r"question of unlearn\[0\] leaves no room"):
        knowundo(encoder, data=tmp_path, variant="published")


@pytest.mark.parametrize("variant", ["official", "published"])
def test_accuracy_perplexity_and_success_by_hand(folder, encoder, variant):
    task = knowundo(encoder, data=folder, variant=variant)
    found = task.measure(answered(task, encoder))
    closing = variant == "official"  # the end of turn is not part of the accuracy
    tokens = [sum(likely.scored) - closing for likely in task.requests[::2]]
    shares = [100 * math.ceil(n / 2) / n for n in tokens]
    unlearn, retention = found.figures["unlearn"], found.figures["retention"]
    assert unlearn["accuracy"].value == pytest.approx(sum(shares[:2]) / 2)
    assert list(unlearn["accuracy"].per_record) == ["unlearn[0]", "unlearn[1]"]
    assert unlearn["nll"].value == 2
    assert unlearn["perplexity"].value == pytest.approx(math.exp(2))  # of the mean: macro
    assert unlearn["perplexity"].interval == pytest.approx((math.e, math.exp(3)))
    assert retention["perplexity"].value == pytest.approx(math.exp(0.5))
    overall = found.figures["overall"]
    assert overall["unlearn_success"].value == pytest.approx(100 - sum(shares[:2]) / 2)
    assert overall["retention_success"].value == pytest.approx(shares[2])
    low, high = unlearn["accuracy"].interval
    assert overall["unlearn_success"].interval == pytest.approx((100 - high, 100 - low))
    assert found.summary["retention"] == {
        "eval_acc": retention["accuracy"].value,
        "eval_ppl": retention["perplexity"].value,
    }


def test_answers_are_compared_and_their_language_is_scored(folder, encoder):
    task = knowundo(encoder, data=folder)
    figures = task.measure(answered(task, encoder)).figures
    # 'near the harbour' of 'in oslo near the harbour'; the other answer is empty
    assert figures["unlearn"]["rouge_l"].value == pytest.approx((3 / 5 + 0) / 2)
    assert figures["unlearn"]["rouge_l_f1"].value == pytest.approx((3 / 5 + 0) / 2)
    assert figures["unlearn"]["empty"].value == 0.5
    assert figures["retention"]["rouge_l"].value == 1
    text = SAID[UNLEARN[0]["labels"]]
    perplexity = (math.exp(1) + math.exp(3)) / 2
    score = figures["unlearn"]["language_score"]
    assert score.value == pytest.approx(language_score(perplexity, brunet(text), honore(text)))
    assert score.note == "1 answers without a word are left out of its word counts"
    assert figures["retention"]["language_score"].note is None


def test_classifiers_judge_the_answers_of_both_sets(folder, tmp_path, encoder):
    judge = save_tiny(tmp_path / "tiny", ["clean", "entailment"])
    task = knowundo(encoder, data=folder, fluency=judge, entailment=judge)
    assert task.settings["fluency"] == task.settings["entailment"] == "tiny"
    found = task.measure(answered(task, encoder))
    for name, gone in (("unlearn", True), ("retention", False)):
        rows = load_judges(judge, judge).rows(found.texts[name], forget=gone)
        own = found.figures[name]
        assert {metric: dict(own[metric].per_record) for metric in rows} == rows
        assert own["entailment"].target == ("reference" if gone else None)
    with pytest.raises(WagleError, match="fluency judges what the model writes"):
        knowundo(encoder, data=folder, fluency=judge, generate=False)


def test_answers_that_rouge_cannot_see_are_left_out_of_it(folder, encoder):
    place = folder / "privacy" / "unlearn.json"
    muted = [{"text": "Where does Ada Holm live?", "labels": "日本の海の近く。"}, UNLEARN[1]]
    for rows, count in ((muted, 1), (muted[:1], 0)):
        place.write_text(json.dumps({"train": [], "val": rows}))
        task = knowundo(encoder, data=folder)
        found = answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2])
        figures = task.measure(found).figures
        for metric in ("rouge_l", "rouge_l_f1"):
            figure = figures["unlearn"][metric]
            assert (figure.n, figure.value is None) == (count, count == 0)
            assert "answers have no ASCII letter or digit" in figure.note
            assert figures["retention"][metric].n == 1
        assert len(figures["unlearn"]["empty"].per_record) == len(rows)


def test_a_collapsed_model_has_no_perplexity_and_no_nan(folder, encoder):
    task = knowundo(encoder, data=folder)
    answers = answered(task, encoder, (900.0, 900.0, 900.0))
    silent = {r: TextAnswer((), True) for r in task.requests if isinstance(r, Greedy)}
    figures = task.measure(Answers(answers.found | silent)).figures["unlearn"]
    assert figures["perplexity"].value is None
    assert "900 nats per token" in figures["perplexity"].note
    assert figures["language_score"].value is None
    assert figures["language_score"].note == "no answer has a word"
    figures = task.measure(answers).figures["unlearn"]
    assert figures["language_score"].value == pytest.approx(0, abs=1e-200)


def test_without_generation_no_answers_are_asked_for(folder, encoder):
    task = knowundo(encoder, data=folder, generate=False)
    assert not any(isinstance(request, Greedy) for request in task.requests)
    answers = answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2])
    found = task.measure(answers)
    assert set(found.figures["unlearn"]) == {"accuracy", "nll", "perplexity"}
    assert found.texts == {"unlearn": [], "retention": []}


def test_the_other_list_and_plain_rows_and_parquet_are_read(folder, encoder):
    from pyarrow import Table
    from pyarrow.parquet import write_table

    assert len(knowundo(encoder, data=folder, part="train").records["unlearn"]) == 1
    other = folder / "copyright"
    other.mkdir()
    (other / "retention.jsonl").write_text("\n".join(map(json.dumps, UNLEARN)))
    row = {"train": RETENTION, "val": UNLEARN}
    write_table(Table.from_pylist([row]), other / "unlearn-00000-of-00001.parquet")
    task = knowundo(encoder, data=folder, domain="copyright")
    assert [len(found) for found in task.records.values()] == [2, 2]
    assert task.requests[:4] == task.requests[4:]


def test_what_does_not_fit_is_named(folder, encoder):
    with pytest.raises(WagleError, match=r"looks for copyright/unlearn .* hub's zjunlp/KnowUnDo"):
        knowundo(encoder, data=folder, domain="copyright")
    file = folder / "privacy" / "retention.json"
    file.write_text(json.dumps({"val": [{"text": "Who?"}]}))
    with pytest.raises(WagleError, match=r"retention\[0\] has no text in its field labels"):
        knowundo(encoder, data=folder)
    file.write_text(json.dumps({"val": []}))
    with pytest.raises(WagleError, match="has no rows in val"):
        knowundo(encoder, data=folder)


def test_a_tiny_model_is_measured_from_a_recipe(folder, encoder):
    settings = {"data": str(folder), "variant": "published", "max_new_tokens": 4}
    task = make_task("knowundo", encoder, settings)
    found = task.measure(answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2]))
    values = [f.value for own in found.figures.values() for f in own.values()]
    assert all(value is None or math.isfinite(value) for value in values)
    assert 0 <= found.figures["overall"]["unlearn_success"].value <= 100
    assert task.probes == [("unlearn", "accuracy"), ("unlearn", "rouge_l")]
    assert all(found.figures[name][metric].target == "reference" for name, metric in task.probes)
