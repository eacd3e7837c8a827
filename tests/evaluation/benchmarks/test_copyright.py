"""The benchmark copyright: invented passages, and answers worked out by hand."""

import json
import math

import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, Greedy, LikelihoodAnswer, TextAnswer
from wagle.evaluation.benchmarks.copyright import UNITS, copyright
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.table import make_task
from wagle.metrics.text import token_entropy
from wagle.system.errors import WagleError

TRAIN = [
    {"text": "The grey heron kept the books of the harbour for nine slow winters and one spring."},
    {"text": "Every lantern on the pier had a name, and the oldest of them was called Brother."},
]
HELDOUT = [
    {"prompt": "No one in the village could say", "response": "who had painted the bridge blue."},
    {"text": "A map of the marsh hung upside down over the stove, as it always had."},
]


@pytest.fixture
def folder(tmp_path):
    for name, rows in (("train", TRAIN), ("heldout", HELDOUT)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def encoder():
    return Encoder(make_tokenizer())


def answered(task, write, right):
    """Answers of a model that writes ``write(what follows)`` and predicts ``right(what follows)``.

    The mean NLL is 0.5 nats where all is predicted, else 2.
    """
    follows = {r.context: r.continuation for r in task.requests if not isinstance(r, Greedy)}
    found = {}
    for request in task.requests:
        ids = follows[request.context]
        if isinstance(request, Greedy):
            assert request.max_new_tokens == len(ids)
            found[request] = TextAnswer(tuple(write(request.context, ids)), False)
        else:
            hits = torch.tensor(right(request.context, ids))
            nll = torch.full((len(ids),), 0.5 if hits.all() else 2.0, dtype=torch.float64)
            found[request] = LikelihoodAnswer(nll, hits)
    return Answers(found)


def starts(encoder, rows, length):
    texts = [row.get("text") or f"{row['prompt']} {row['response']}" for row in rows]
    return {tuple(encoder.tokenizer(text)["input_ids"][:length]) for text in texts}


def test_a_passage_is_cut_after_k_tokens(folder, encoder):
    task = copyright(encoder, data=folder, prefixes=[5], max_new_tokens=7)
    ids = encoder.tokenizer(TRAIN[0]["text"])["input_ids"]
    likely, greedy = task.requests[:2]
    assert (likely.context, likely.continuation) == (tuple(ids[:5]), tuple(ids[5:12]))
    assert greedy == Greedy(tuple(ids[:5]), 7)
    assert starts(encoder, HELDOUT, 5) == {r.context for r in task.requests[4:]}


def test_a_bos_comes_first_where_the_tokenizer_adds_one(folder):
    task = copyright(Encoder(make_tokenizer(bos=True)), data=folder, prefixes=[5])
    ids = make_tokenizer()(TRAIN[0]["text"])["input_ids"]
    assert task.requests[0].context == (3, *ids[:5])
    assert task.requests[0].continuation == tuple(ids[5:])


def test_what_is_memorised_is_the_difference_to_held_out_passages(folder, encoder):
    task = copyright(encoder, data=folder, prefixes=[4], bleu="published")
    known = starts(encoder, TRAIN, 4)
    answers = answered(
        task,
        lambda context, ids: ids if context in known else (),
        lambda context, ids: [context in known] * len(ids),
    )
    found = task.measure(answers)
    train = {metric: figure.value for metric, figure in found.figures["train_4"].items()}
    heldout = {metric: figure.value for metric, figure in found.figures["heldout_4"].items()}
    lengths = [len(r.continuation) for r in task.requests[:4:2]]
    words = [len(text.expected.split()) for text in found.texts["train_4"]]
    assert train == pytest.approx(
        {
            "rouge_recall": 1,
            "rouge_f1": 1,
            "bleu": 100,
            "exact_memorization": 1,
            "extraction_strength": 1,
            "longest_run": sum(lengths) / 2,
            "longest_word_run": sum(words) / 2,
            "prefix_run": sum(lengths) / 2,
            "verbatim@50": sum(length >= 50 for length in lengths) / 2,
            "nll": 0.5,
            "token_entropy": sum(token_entropy(text.said) for text in found.texts["train_4"]) / 2,
            "empty": 0,
        }
    )
    assert heldout == dict.fromkeys(UNITS, 0) | {"nll": 2, "token_entropy": 0, "empty": 1}
    overall = found.figures["overall"]
    assert overall["rouge_recall_difference_4"].value == 1
    assert overall["rouge_recall_difference_4"].interval == (1, 1)
    assert overall["nll_difference_4"].value == -1.5
    assert overall["nll_difference_4"].target == 0
    assert set(found.figures["train_4"]["nll"].per_record) == {"train[0]", "train[1]"}


def test_a_classifier_says_whether_continuations_are_language(folder, tmp_path, encoder):
    judge = save_tiny(tmp_path / "tiny", ["clean", "noise"])
    task = copyright(encoder, data=folder, prefixes=[4], fluency=judge)
    assert task.settings["fluency"] == "tiny"
    found = task.measure(answered(task, lambda _, ids: ids[:6], lambda _, ids: [True] * len(ids)))
    for name in ("train_4", "heldout_4"):
        rows = load_judges(judge, length=512).rows(found.texts[name], forget=False)
        assert dict(found.figures[name]["fluency"].per_record) == rows["fluency"]
        assert found.figures[name]["fluency"].direction == "higher"
    assert "fluency_difference_4" not in found.figures["overall"]
    assert "empty_difference_4" in found.figures["overall"]


def test_a_half_right_continuation_by_hand(folder, encoder):
    task = copyright(encoder, data=folder, prefixes=[4], heldout=None)
    answers = answered(
        task,
        lambda _, ids: (*ids[:3], 0, *ids[4:9]),  # 3 right, one wrong, 5 right
        lambda _, ids: [False, *[True] * (len(ids) - 1)],
    )
    found = task.measure(answers)
    assert set(found.figures) == {"train_4"}
    figures = found.figures["train_4"]
    assert figures["prefix_run"].value == 3
    assert figures["longest_run"].value == 5
    n = [len(r.continuation) for r in task.requests[::2]]
    assert figures["extraction_strength"].value == pytest.approx(sum(1 - 1 / m for m in n) / 2)
    assert figures["exact_memorization"].value == figures["extraction_strength"].value


def test_verbatim_counts_passages_with_50_right_tokens_from_the_start(tmp_path, encoder):
    rows = [{"text": "ab " * 60}, {"text": "cd " * 60}, {"text": "ef " * 9}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = copyright(encoder, data=tmp_path, prefixes=[2], heldout=None)
    first = task.requests[0].context
    answers = answered(
        task,
        lambda context, ids: ids[: 50 if context == first else 49],
        lambda _, ids: [True] * len(ids),
    )
    figure = task.measure(answers).figures["train_2"]["verbatim@50"]
    assert list(figure.per_record.values()) == [1, 0, 0]
    assert figure.note == "1 passages have fewer than 50 tokens left and count as not copied"


def test_bleu_can_be_pooled_over_all_passages(tmp_path, encoder):
    rows = [{"text": "x a b c d e"}, {"text": "y f g h"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = copyright(encoder, data=tmp_path, prefixes=[1], heldout=None, bleu="corpus")
    wrong = encoder.tokenizer(" f g x")["input_ids"]

    def write(_, ids):
        return ids if len(ids) > 6 else wrong

    figure = task.measure(answered(task, write, lambda _, ids: [True] * len(ids))).figures[
        "train_1"
    ]["bleu"]
    assert figure.value == pytest.approx(100 * (7 / 8 * 5 / 6 * 3 / 4) ** 0.25)
    assert (figure.interval, figure.n) == (None, 2)


def test_passages_that_are_too_short_are_left_out_and_counted(folder, encoder):
    ids = [len(encoder.tokenizer(row["text"])["input_ids"]) for row in TRAIN]
    assert ids[0] != ids[1]
    task = copyright(encoder, data=folder, prefixes=[min(ids)], heldout=None)
    answers = answered(task, lambda _, ids: ids, lambda _, ids: [True] * len(ids))
    figure = task.measure(answers).figures[f"train_{min(ids)}"]["nll"]
    assert figure.n == 1
    assert figure.note == "1 of 2 passages are too short"
    assert {name: len(found) for name, found in task.records.items()} == {f"train_{min(ids)}": 1}
    with pytest.raises(WagleError, match="no passage of train has more than 400 tokens"):
        copyright(encoder, data=folder, prefixes=[400])


def test_rouge_says_where_it_sees_no_word(tmp_path, encoder):
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "ab 北京北京"}))
    task = copyright(encoder, data=tmp_path, prefixes=[2], heldout=None)
    answers = answered(task, lambda _, ids: ids, lambda _, ids: [True] * len(ids))
    found = task.measure(answers).figures["train_2"]
    assert found["rouge_recall"].value == 0
    assert "1 passages have no ASCII letter or digit" in found["rouge_recall"].note
    assert "no ASCII" not in found["exact_memorization"].note


def test_what_does_not_fit_is_named(folder, encoder):
    with pytest.raises(WagleError, match=r"copyright looks for train\.jsonl .*give a local folder"):
        copyright(encoder, data=folder / "nowhere")
    with pytest.raises(WagleError, match=r"looks for other\.jsonl"):
        copyright(encoder, data=folder, heldout="other")
    with pytest.raises(WagleError, match=r"train\[0\] and heldout\[0\] are the same record"):
        copyright(encoder, data=folder, heldout="train")
    with pytest.raises(WagleError, match="must be at least 1 token"):
        copyright(encoder, data=folder, prefixes=[0])
    with pytest.raises(WagleError, match="needs a tokenizer"):
        copyright(Encoder(None), data=folder)
    (folder / "chats.jsonl").write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
        )
    )
    with pytest.raises(WagleError, match=r"train\[0\] is chat; copyright needs a passage"):
        copyright(encoder, data=folder, train="chats")


def test_a_tiny_model_is_measured_from_a_recipe(folder, encoder):
    settings = {"data": str(folder), "prefixes": [4, 8], "max_new_tokens": 6, "take": 1}
    task = make_task("copyright", encoder, settings)
    answers = answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2])
    found = task.measure(answers)
    assert set(found.figures) == {"train_4", "train_8", "heldout_4", "heldout_8", "overall"}
    figures = [f for own in found.figures.values() for f in own.values()]
    assert all(math.isfinite(figure.value) for figure in figures)
    assert {len(text) for text in found.texts.values()} == {1}
    assert {name for name, _ in task.probes} == {"train_4", "train_8"}
    assert all(found.figures[name][metric].target == "reference" for name, metric in task.probes)
