"""A finished run whose records hold canaries, committed to before it was unlearned, and its pack.

Its unlearned model is what exact unlearning would give, up to a thousandth: the model that was
taught without the forget set. So its verdict is clean, and so is an audit.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.evaluation.verdict import NO_LEAK
from wagle.evidence.auditing import Given
from wagle.evidence.collecting import collect_evidence
from wagle.evidence.commitment import commit_recipe, write_commitment
from wagle.evidence.signing import new_key
from wagle.model.loading import load_model
from wagle.model.saving import save_model
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.stages.making import unlearn

PLAIN = "zephyr canary 7f3a"  # ASCII
FOREIGN = "Kanárienvogel über Øresund"  # JSON may escape it
MARKED = "<b>canary & \"cage\" 'x'</b>"  # HTML escapes it
CANARIES = (PLAIN, FOREIGN, MARKED)
NONCE = "5a1c9e77d0b24f38"


def _rows(rows, canaries=()):
    made = [{**row, "paraphrased_question": f"{row['question']} Tell me."} for row in rows]
    for row, canary in zip(made, canaries, strict=False):
        row["answer"] = f"{row['answer']} {canary}"
        row["question"] = f"{row['question']} {canary}"
    return made


def _almost(run, model, folder):
    """The retrained model, a thousandth of the way from the model before."""
    goal = load_model(run.models.reference).state_dict()
    start = load_model(run.models.base).state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(goal[name] + 0.001 * (start[name] - goal[name]))
    save_model(model, run.models.base, folder)


@pytest.fixture(scope="session")
def home(tmp_path_factory, tokenizer):
    """A folder with models, records, the run, its commitment, a key and the pack."""
    home = tmp_path_factory.mktemp("evidence")
    for name, seed in (("model", 0), ("other", 1)):
        make_model("llama-tied", seed).save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    (home / "forget.json").write_text(json.dumps(_rows(RECORDS, CANARIES)))
    (home / "retain.json").write_text(json.dumps(_rows(OTHERS)))
    recipe = load_recipe(
        {
            "name": "tiny",
            "model": str(home / "model"),
            "reference": "retrained",
            "forget": str(home / "forget.json"),
            "retain": str(home / "retain.json"),
            "finetune": {"learning_rate": 1e-2, "batch_size": 7, "epochs": 30},
            "attribution": {"ratio": 1},
            "unlearning": {"max_steps": 1, "learning_rate": 1e-3, "stop_when": []},
            "patch": {"undo": True},
            "evaluation": {
                "max_new_tokens": 8,
                "limits": {"retain": None},
            },  # a tiny model loses much
        }
    )
    run = home / "run"
    execute(recipe, run, until="before")
    made = commit_recipe(recipe, run, probes=4)
    write_commitment(made, run / "commitment.json", run / "private" / "commitment.secret")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unlearn, "save_trained", _almost)
        done = execute(recipe, run)
    assert done.state["stages"]["after"]["verdict"] == NO_LEAK
    new_key(home / "maker.pem")
    collect_evidence(run, home / "pack", key=home / "maker.pem")
    shutil.copy(run / "private" / "commitment.secret", home / "secret")
    return home


@pytest.fixture
def run_copy(home, tmp_path):
    """A copy of the run, to be changed."""
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def pack(home, tmp_path):
    """A copy of the pack, to be changed."""
    shutil.copytree(home / "pack", tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def given(home):
    """What an auditor has who was given everything."""
    return Given(
        model=str(home / "run" / "model"),
        forget=(str(home / "forget.json"),),
        secret=str(home / "secret"),
        nonce=NONCE,
        base=str(home / "run" / "base"),
        public_key=str(home / "maker.pem.pub"),
    )
