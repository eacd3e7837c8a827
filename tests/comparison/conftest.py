"""A tiny comparison: a model folder, records with paraphrases, a recipe that teaches them."""

from __future__ import annotations

import json

import pytest

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.recipe.reading import load_recipe

ROWS = [{**row, "paraphrased_question": f"{row['question']} Tell me."} for row in RECORDS + OTHERS]


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory):
    """A recipe in which 6 of 14 records, drawn anew for every unit, are to go."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model("llama-tied").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    (folder / "records.json").write_text(json.dumps(ROWS))
    training = {"learning_rate": 5e-3, "batch_size": 4}

    def make(**changes):
        settings = {
            "name": "tiny",
            "model": str(folder / "model"),
            "reference": "untaught",
            "forget": {"source": str(folder / "records.json"), "take": 6},
            "retain": "complement",
            "finetune": {**training, "epochs": 6},
            "attribution": {"ratio": 0.5},
            "unlearning": {**training, "objective": "npo", "max_steps": 3},
        }
        return load_recipe({**settings, **changes})

    return make
