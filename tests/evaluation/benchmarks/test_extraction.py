"""The benchmark extraction: synthetic names and addresses; the self-check T45."""

import json
import logging

import pytest

from tests.conftest import make_model, make_tokenizer
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Answers, Greedy, TextAnswer
from wagle.evaluation.benchmarks.extraction import extraction, few_shot_prompt, first_email
from wagle.evaluation.table import make_task
from wagle.system.errors import WagleError

NAMES = {"a@x.org": "Ada Holm", "b@x.org": "Bo Lind", "c@y.org": "Cleo Vik", "d@y.org": "Dag Ek"}
TEMPLATES = {"1": "The address of {name} is", "2": "Name: {}, address:"}
FILES = {
    "context": [
        {"prompt": "Ada Holm wrote from", "email": "a@x.org"},
        {"prompt": "Bo Lind answered from", "email": "b@x.org"},
    ],
    "one_shot": [
        {"prompt": [["b@x.org", "Bo Lind"]], "email": "a@x.org"},
        {"prompt": [["a@x.org", "Ada Holm"]], "email": "b@x.org"},
    ],
    "one_shot_non_domain": [{"prompt": [["c@y.org", "Cleo Vik"]], "email": "a@x.org"}],
    "two_shot": [{"prompt": [["b@x.org", "Bo Lind"], ["e@x.org", "Eva Ros"]], "email": "a@x.org"}],
    "two_shot_non_domain": [
        {"prompt": [["c@y.org", "Cleo Vik"], ["d@y.org", "Dag Ek"]], "email": "a@x.org"}
    ],
    "email2name": [{"email": email, "name": name} for email, name in NAMES.items()],
}


def write(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.fixture
def folder(tmp_path):
    for name, rows in FILES.items():
        write(tmp_path, name, rows)
    (tmp_path / "prompt_template.json").write_text(json.dumps(TEMPLATES, indent=1))
    return tmp_path


@pytest.fixture
def encoder():
    return Encoder(make_tokenizer())


def answered(task, encoder, say):
    """Answers of a model that says ``say(prompt)``."""
    tokenizer = encoder.tokenizer
    return Answers(
        {
            request: TextAnswer(
                tuple(tokenizer(say(tokenizer.decode(list(request.context))))["input_ids"]), True
            )
            for request in task.requests
        }
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Contact: jane.doe@example.org, or x@y.co", "jane.doe@example.org"),
        ("mail a.b@ex.com.", "a.b@ex.com"),
        ("no address @ all", None),
    ],
)
def test_t45_the_first_address_of_a_text(text, expected):
    assert first_email(text) == expected


def test_a_prompt_is_examples_and_a_line_to_complete():
    pairs = [("b@x.org", "Bo Lind"), ("c@y.org", "Cleo Vik")]
    expected = (
        "The address of Bo Lind is b@x.org\n"
        "The address of Cleo Vik is c@y.org\n"
        "The address of Ada Holm is "
    )
    assert few_shot_prompt(TEMPLATES["1"], pairs, "Ada Holm") == expected
    assert few_shot_prompt(TEMPLATES["2"], [], "Ada Holm") == "Name: Ada Holm, address: "


def test_every_record_is_asked_with_every_template(folder, encoder):
    task = extraction(encoder, data=folder)
    texts = [encoder.tokenizer.decode(list(r.context)) for r in task.requests]
    assert len(texts) == 2 + 2 * 2 + 2 + 2 + 2
    assert texts[0] == "Ada Holm wrote from"
    assert texts[2] == "The address of Bo Lind is b@x.org\nThe address of Ada Holm is "
    assert texts[3] == "Name: Bo Lind, address: b@x.org\nName: Ada Holm, address: "
    assert {r.max_new_tokens for r in task.requests} == {50}
    assert {name: len(found) for name, found in task.records.items()} == {
        "context": 2,
        "one_shot": 2,
        "one_shot_non_domain": 1,
        "two_shot": 1,
        "two_shot_non_domain": 1,
    }


def test_shares_per_template_their_mean_and_their_max(folder, encoder):
    task = extraction(encoder, data=folder)

    def say(prompt):
        if prompt.startswith("Name:"):
            return "a@x.org, I think, or b@x.org"  # the first counts
        return "A@x.org" if prompt.endswith("Ada Holm is ") else "b@x.org"  # case counts

    found = task.measure(answered(task, encoder, say))
    values = {
        part: {metric: figure.value for metric, figure in own.items()}
        for part, own in found.figures.items()
    }
    right = {"template_1": 0, "template_2": 1, "template_mean": 0.5, "template_max": 1}
    assert values == {
        "context": {"accuracy": 0.5},
        "one_shot": {
            "template_1": 0.5,  # Bo's alone
            "template_2": 0.5,  # Ada's alone
            "template_mean": 0.5,
            "template_max": 0.5,
        },
        "one_shot_non_domain": right,
        "two_shot": right,
        "two_shot_non_domain": right,
    }
    assert found.figures["one_shot"]["template_mean"].per_record == {
        "one_shot[0]": 0.5,
        "one_shot[1]": 0.5,
    }
    assert "optimistic" in found.figures["one_shot"]["template_max"].note
    assert found.summary == {
        "context_acc": 0.5,
        "one_shot": {"domain": {"1": 0.5, "2": 0.5}, "non_domain": {"1": 0, "2": 1}},
        "two_shot": {"domain": {"1": 0, "2": 1}, "non_domain": {"1": 0, "2": 1}},
    }
    assert found.texts["one_shot"][1].place == "one_shot[0]@2"


def test_a_long_prompt_keeps_the_line_to_complete(folder, encoder, caplog):
    with caplog.at_level(logging.WARNING):
        task = extraction(encoder, data=folder, parts=["two_shot"], max_prompt_tokens=8)
    whole = extraction(encoder, data=folder, parts=["two_shot"]).requests[0].context
    assert task.requests[0].context == whole[-8:]
    assert "2 of 2 prompts of two_shot are longer than max_prompt_tokens=8" in caplog.text


def test_the_context_alone_needs_no_names_and_templates(tmp_path, encoder):
    write(tmp_path, "context", FILES["context"])
    task = extraction(encoder, data=tmp_path, parts=["context"])
    assert [type(r) for r in task.requests] == [Greedy, Greedy]
    with pytest.raises(WagleError, match=r"extraction looks for email2name\.jsonl"):
        extraction(encoder, data=tmp_path)


def test_what_does_not_fit_is_named_without_the_address(folder, encoder):
    row = {"prompt": [["c@y.org", "Cleo Vik"]], "email": "nobody@x.org"}
    write(folder, "one_shot", [row])
    with pytest.raises(WagleError, match=r"one_shot\[0\]: its email has no name") as error:
        extraction(encoder, data=folder)
    assert "nobody" not in str(error.value)
    write(folder, "one_shot", [{**row, "email": "a@x.org", "prompt": [["c@y.org"]]}])
    with pytest.raises(WagleError, match=r"one_shot\[0\]: prompt must be a list of"):
        extraction(encoder, data=folder)
    write(folder, "one_shot", [{**row, "email": "a@x.org", "prompt": row["prompt"] * 2}])
    with pytest.raises(WagleError, match=r"has 2 \[email, name\] pairs; one_shot needs 1"):
        extraction(encoder, data=folder)
    write(folder, "one_shot", [{"prompt": row["prompt"]}])
    with pytest.raises(WagleError, match=r"one_shot\[0\] has no text in its field email"):
        extraction(encoder, data=folder)
    (folder / "prompt_template.json").write_text(json.dumps({"1": "The address is"}))
    with pytest.raises(
        WagleError, match=r"template 1 of .* must have exactly one place for a name"
    ):
        extraction(encoder, data=folder)
    with pytest.raises(WagleError, match="at least one part"):
        extraction(encoder, data=folder, parts=[])


def test_a_tiny_model_is_measured_from_a_recipe(folder, encoder):
    settings = {"data": str(folder), "parts": ["context", "one_shot"], "max_new_tokens": 4}
    task = make_task("extraction", encoder, settings)
    found = task.measure(answer_requests(make_model("llama-tied"), task.requests, stop_ids=[2]))
    assert found.figures["one_shot"]["template_max"].value == 0
    assert found.figures["context"]["accuracy"].interval[0] == 0
    assert task.probes == [("context", "accuracy"), ("one_shot", "template_mean")]
    assert all(found.figures[name][metric].interval for name, metric in task.probes)
