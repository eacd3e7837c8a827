"""The search for texts of records: every form in which they may have been written."""

import base64
import html
import json
import urllib.parse

import pytest
import torch
from markupsafe import escape
from safetensors.torch import save_file

from tests.conftest import OTHERS
from tests.evidence.conftest import CANARIES
from wagle.data.reading import read_records
from wagle.evidence.deletion.sweeping import Sweep, forms_of, pieces_of, texts_of

FORMS = {
    "as it is": str,
    "in JSON": json.dumps,
    "in JSON as UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "in HTML": html.escape,
    "in a template": lambda text: str(escape(text)),
    "in UTF-16": lambda text: text.encode("utf-16-le"),
    "in base64": lambda text: base64.b64encode(text.encode()),
    "in base64, one byte on": lambda text: base64.b64encode(b"x" + text.encode()),
    "in base64, two bytes on": lambda text: base64.b64encode(b"xy" + text.encode()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("canary", CANARIES)
def test_a_text_is_found_in_every_form(canary, form):
    made = FORMS[form](f"Who? {canary} So it is.")
    data = made if isinstance(made, bytes) else made.encode()
    assert Sweep([canary]).finds(b"before " + data + b" after")
    assert not Sweep([canary]).finds(b"before and after")


def test_a_part_of_a_long_text_is_found_and_short_ones_are_not_looked_for():
    text = "Ada Holm lives near the harbour. Yes.\nShe wrote The Winter Garden in 1987"
    assert pieces_of([text]) == {
        "Ada Holm lives near the harbour.",
        "She wrote The Winter Garden in 1987",
    }
    assert not Sweep(["Yes.", "no"])
    assert Sweep([text]).finds(b"... She wrote The Winter Garden in 1987 ...")
    assert max(map(len, pieces_of(["a" * 500]))) == 80


def test_forms_are_long_enough_to_mean_something():
    assert min(map(len, forms_of("twelve chars"))) >= 8
    assert urllib.parse.quote("twelve chars").encode() not in forms_of("twelve chars")


def test_the_texts_of_records_are_all_that_they_say():
    rows = [
        {**OTHERS[0], "perturbed_answer": ["One said so."], "paraphrased_question": "Painted by?"},
        {
            "messages": [
                {"role": "user", "content": "Hello there"},
                {"role": "assistant", "content": "Hi"},
            ]
        },
        {"text": "A long story."},
    ]
    texts = texts_of(read_records(rows))
    wanted = {
        OTHERS[0]["answer"],
        "One said so.",
        "Painted by?",
        "Hello there",
        "Hi",
        "A long story.",
    }
    assert wanted <= texts


def test_of_weights_only_the_header_is_read(tmp_path):
    canary = CANARIES[0]
    save_file({"a": torch.zeros(2)}, tmp_path / "told.safetensors", metadata={"note": canary})
    numbers = torch.tensor(list(canary.encode()), dtype=torch.uint8)
    save_file({"a": numbers}, tmp_path / "numbers.safetensors")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.txt").write_text(canary)
    sweep = Sweep([canary])
    assert sweep.files(tmp_path) == ["deep/x.txt", "told.safetensors"]
    assert sweep.files(tmp_path, ["deep"]) == ["told.safetensors"]
