"""A tiny model in a folder, and what is asked of it in whatever form."""

from __future__ import annotations

import pytest

from tests.conftest import RECORDS, make_model, make_tokenizer
from wagle.evaluation.measuring import evaluate

ASKED = [
    {
        **row,
        "paraphrased_question": f"Tell me: {row['question']}",
        "perturbed_answer": ["No.", "A horse."],
    }
    for row in RECORDS
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model and its tokenizer, never changed by a test."""
    home = tmp_path_factory.mktemp("served") / "tiny"
    make_model("llama-tied").save_pretrained(home)
    make_tokenizer().save_pretrained(home)
    return home


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Another model, for a role beside the first one."""
    home = tmp_path_factory.mktemp("served") / "other"
    make_model("llama-tied", 1).save_pretrained(home)
    make_tokenizer().save_pretrained(home)
    return home


@pytest.fixture(scope="session")
def plain(folder):
    """What the engine finds about the folder."""
    return ask(folder)


def ask(model, **more):
    """A model's evaluation on six records, with short greedy answers."""
    return evaluate(model, forget=ASKED, max_new_tokens=6, **more)
