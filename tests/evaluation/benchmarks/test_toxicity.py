"""The benchmark toxicity: harmless prompts, a tiny classifier, and shares worked out by hand."""

import json
import logging

import pytest

from tests.conftest import make_model, make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, Greedy, TextAnswer
from wagle.evaluation.benchmarks.toxicity import toxicity
from wagle.evaluation.judges.classifiers import Classifier
from wagle.evaluation.table import make_task
from wagle.metrics.text import token_entropy
from wagle.system.errors import WagleError

PROMPTS = ["The sea by Oslo", "She lives", "In Bergen", "By the sea"]
SAID = ["she lives", "", "by the sea in oslo", "bergen"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "judge"
    return save_tiny(folder, ["toxic", "obscene", "threat"], "multi_label_classification", seed=8)


@pytest.fixture
def encoder():
    return Encoder(make_tokenizer())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "harmful.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in PROMPTS))
    return path


def answered(task, encoder):
    """Answers in the order of the requests; the second ran into the limit."""
    return Answers(
        {
            request: TextAnswer(tuple(encoder.tokenizer(said)["input_ids"]), i != 1)
            for i, (request, said) in enumerate(zip(task.requests, SAID, strict=True))
        }
    )


def test_prompts_are_asked_as_raw_text(file, judge, encoder):
    task = toxicity(encoder, data=file, classifier=judge, max_new_tokens=9)
    coded = [tuple(encoder.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    assert task.requests == [Greedy(ids, 9) for ids in coded]


def test_prompts_are_asked_as_questions_where_templated(file, judge, encoder):
    task = toxicity(encoder, data=file, classifier=judge, templated=True)
    text = encoder.tokenizer.decode(list(task.requests[1].context))
    assert text == "<|start|>user\nShe lives<|end|>\n<|start|>assistant\n"


def test_shares_and_means_are_those_of_the_named_label(file, judge, encoder):
    scores = Classifier(judge, label="obscene").scores(SAID)  # an empty one is scored too
    limit = sum(sorted(scores.label)[1:3]) / 2  # so that two of four lie above
    task = toxicity(encoder, data=file, classifier=judge, label="obscene", threshold=limit)
    found = task.measure(answered(task, encoder))
    figures = found.figures["harmful"]
    values = {metric: figure.value for metric, figure in figures.items()}
    assert values == pytest.approx(
        {
            "toxic_rate": 0.5,
            "mean_score": sum(scores.label) / 4,
            "max_label_rate": sum(score > limit for score in scores.largest) / 4,
            "max_label_score": sum(scores.largest) / 4,
            "token_entropy": sum(map(token_entropy, SAID)) / 4,
            "empty": 0.25,
            "at_limit": 0.25,
        },
        abs=1e-5,
    )
    assert values["mean_score"] < values["max_label_score"]
    assert {figures.pop("token_entropy").direction} == {"higher"}
    assert {figure.direction for figure in figures.values()} == {"lower"}
    assert list(figures["toxic_rate"].per_record) == [f"harmful[{i}]" for i in range(4)]
    assert found.summary["harmful_toxic_rate"] == values["max_label_rate"]
    assert found.summary["harmful_mean_score"] == values["max_label_score"]
    assert list(task.records["harmful"]) == [f"harmful[{i}]" for i in range(4)]
    assert task.settings["classifier"] == "judge"


def test_the_largest_of_labels_that_exclude_one_another_says_so(file, tmp_path, encoder):
    folder = save_tiny(tmp_path / "softmax", ["neutral", "toxic"])
    task = toxicity(encoder, data=file, classifier=folder)
    figures = task.measure(answered(task, encoder)).figures["harmful"]
    assert "exclude one another" in figures["max_label_rate"].note
    assert figures["toxic_rate"].note is None


def test_a_folder_is_a_set_per_file_and_prompts_may_be_nested(file, judge, encoder):
    rows = [{"prompt": {"text": text, "toxicity": 0.1}} for text in ("In Oslo", "On the pier")]
    (file.parent / "real.v1.json").write_text(json.dumps(rows))
    task = toxicity(encoder, data=file.parent, classifier=judge)
    assert {name: len(found) for name, found in task.records.items()} == {
        "harmful": 4,
        "real_v1": 2,
    }
    coded = encoder.tokenizer("On the pier")["input_ids"]
    assert task.requests[-1].context == tuple(coded)


def test_a_draw_keeps_the_places_of_its_prompts(file, judge, encoder):
    draws = {}
    for take in (1, 2, 3):
        task = toxicity(encoder, data=file, classifier=judge, take=take, seed=1)
        draws[take] = {
            PROMPTS.index(encoder.tokenizer.decode(list(r.context))) for r in task.requests
        }
        replies = Answers({request: TextAnswer((5,), True) for request in task.requests})
        places = task.measure(replies).figures["harmful"]["toxic_rate"].per_record
        assert list(places) == [f"harmful[{i}]" for i in sorted(draws[take])]
    assert draws[1] < draws[2] < draws[3]


def test_a_prompt_that_is_too_long_keeps_its_end_and_is_told(file, judge, caplog):
    encoder = Encoder(make_tokenizer(), max_length=3)
    with caplog.at_level(logging.WARNING):
        task = toxicity(encoder, data=file, classifier=judge)
    assert {len(request.context) for request in task.requests} == {3}
    whole = encoder.tokenizer(PROMPTS[0])["input_ids"]
    assert task.requests[0].context == tuple(whole[-3:])
    assert "prompts of harmful do not fit into max_length=3" in caplog.text


def test_what_does_not_fit_is_named(file, judge, encoder, tmp_path):
    with pytest.raises(WagleError, match=r"looks for files of prompts .* give a file or a folder"):
        toxicity(encoder, data=tmp_path / "nowhere", classifier=judge)
    with pytest.raises(WagleError, match="unknown label of classifier judge 'rude'"):
        toxicity(encoder, data=file, classifier=judge, label="rude")
    with pytest.raises(WagleError, match="take asks for 5 of 4 prompts"):
        toxicity(encoder, data=file, classifier=judge, take=5)
    with pytest.raises(WagleError, match="threshold is 1"):
        toxicity(encoder, data=file, classifier=judge, threshold=1)
    with pytest.raises(WagleError, match="cannot load the classifier unitary/toxic-bert"):
        toxicity(encoder, data=file)
    file.write_text(json.dumps({"prompt": "Oslo"}) + "\n" + json.dumps({"prompt": " "}))
    with pytest.raises(WagleError, match=r"harmful\[1\] has no text in its field prompt"):
        toxicity(encoder, data=file, classifier=judge)
    file.write_text("")
    with pytest.raises(WagleError, match="at least one"):
        toxicity(encoder, data=file, classifier=judge)


def test_a_tiny_model_is_measured_from_a_recipe(file, judge, encoder):
    settings = {"data": str(file), "classifier": str(judge), "max_new_tokens": 5}
    task = make_task("toxicity", encoder, settings)
    found = task.measure(answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2]))
    assert found.figures["harmful"]["toxic_rate"].n == 4
    assert task.probes == [("harmful", "toxic_rate")]
    assert len(found.texts["harmful"]) == 4
