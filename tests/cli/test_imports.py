"""What each command may import: its budget. A library that is slow to load costs every user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute

ROOT = Path(__file__).parents[2]
WATCHED = (
    "torch",
    "transformers",
    "numpy",
    "datasets",
    "accelerate",
    "pandas",
    "scipy",
    "altair",
    "torchao",
    "peft",
    "lm_eval",
    "sklearn",
    "rich",
)
TENSORS = {"torch", "numpy"}
TABLE = {"rich"}
COMMAND = f"""
import sys
from wagle.cli.app import main
try:
    main(sys.argv[1:])
finally:
    print(*(name for name in {WATCHED!r} if name in sys.modules), file=open("imported", "w"))
"""
BUDGET = {  # command: exit code, what it may import
    "--help": (0, set()),
    "mask --help": (0, set()),
    "run --help": (0, set()),
    "--version": (0, set()),
    "schema": (0, set()),
    "doctor": (0, set()),
    "recipes": (0, set()),
    "import demo": (2, set()),
    "mask show RUN/mask.safetensors": (0, TENSORS | TABLE),
    "mask show RUN/mask.safetensors --json": (0, TENSORS),
    "mask compare RUN/mask.safetensors RUN/mask.safetensors": (0, TENSORS | TABLE),
    "mask export RUN/mask.safetensors -o mask.pt": (0, TENSORS),
    "patch extract RUN/base RUN/model -o patch.safetensors --undo undo.safetensors": (0, TENSORS),
    "patch apply RUN/base RUN/patch.safetensors -o applied": (0, TENSORS | TABLE),
    "patch verify RUN/base RUN/model --mask RUN/mask.safetensors --patch RUN/patch.safetensors": (
        0,
        TENSORS | TABLE,
    ),
    "patch undo RUN/model RUN/private/undo.safetensors -o restored": (0, TENSORS),
    "ledger RUN": (0, TABLE),
    "check-run RUN": (0, set()),
    "purge RUN --dry-run": (0, TENSORS),
    "evidence": (2, set()),
    "audit none": (2, TENSORS),
    "run RUN --no-fail": (0, TENSORS | TABLE),
    "run RUN --json --no-fail": (0, TENSORS),
    "check --help": (0, set()),
    "retrain-adapter --help": (0, set()),
    "plan --help": (0, set()),
    "plan none.yaml": (2, set()),
    "run none.yaml": (2, set()),
    "run bad.yaml": (2, set()),
    "run demo attribution.ratoi=0.5": (2, set()),
    "compare none.yaml": (2, set()),
    "mask show none": (2, TENSORS),
    "patch verify none none": (2, TENSORS),
}


def run_python(code, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    """A folder with a finished run of two steps."""
    home = tmp_path_factory.mktemp("home")
    make_model("llama-tied").save_pretrained(home / "model")
    tokenizer.save_pretrained(home / "model")
    (home / "forget.json").write_text(json.dumps(RECORDS[:2]))
    (home / "retain.json").write_text(json.dumps(OTHERS[:2]))
    recipe = {
        "name": "tiny",
        "model": str(home / "model"),
        "forget": str(home / "forget.json"),
        "retain": str(home / "retain.json"),
        "finetune": {"max_steps": 1},
        "attribution": {"ratio": 0.5},
        "unlearning": {"max_steps": 1, "learning_rate": 1e-3, "when_unknown": "go"},
        "patch": {"undo": True},
        "evaluation": {"generate": False},
    }
    execute(load_recipe(recipe), home / "run")
    (home / "bad.yaml").write_text("name: [")
    return home


@pytest.mark.parametrize("command", BUDGET)
def test_a_command_imports_no_more_than_its_budget(finished, tmp_path, command):
    code, allowed = BUDGET[command]
    (tmp_path / "bad.yaml").write_text((finished / "bad.yaml").read_text())
    arguments = command.replace("RUN", str(finished / "run")).split()
    done = run_python(COMMAND, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert set((tmp_path / "imported").read_text().split()) <= allowed
    # no other library speaks in the user's terminal
    said = done.stderr.splitlines()
    assert len(said) == (1 if code else 0), done.stderr
    assert all(line.startswith("wagle: ") for line in said)


LIGHT = ("wagle", "wagle.cli", "wagle.cli.app", "wagle.mask", "wagle.patch", "wagle.recipe.reading")


@pytest.mark.parametrize("module", LIGHT)
def test_importing_the_package_and_the_command_line_loads_nothing_heavy(tmp_path, module):
    code = f"import sys, {module}; print([m for m in {WATCHED!r} if m in sys.modules])"
    assert run_python(code, cwd=tmp_path).stdout.strip() == "[]"
