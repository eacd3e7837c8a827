"""Valid examples of every kind of file that wagle reads, made by wagle itself from tiny models."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import secrets
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.report.attack_files import probe, relearning, sampling

RECIPE = """\
name: tiny
seed: 3
model: {path: model, max_length: 128}
reference: untaught
forget: {source: forget.json, rows: "0:4", take: 100%}
retain: retain.json
finetune: {learning_rate: 1e-2, batch_size: 7, epochs: 2, sets: [forget, retain]}
attribution:
  score: wagle
  gamma: {theta_share: 0.5}
  ratio: [0.1, 0.5]
  use: 0.5
  include: [ffn, "*.q_proj.*"]
unlearning:
  objective: npo
  objective_settings: {beta: 0.1}
  learning_rate: 1e-3
  max_steps: 2
  when_unknown: go
evaluation: {max_new_tokens: 4, limits: {retain: 0.2}}
patch: {undo: true}
"""
ATTACKS = """\
attacks:
  - {name: relearning, settings: {steps: [0, 1]}}
  - {name: sampling, settings: {samples: 4, max_new_tokens: 4}}
controls: [random]
report: {show_text: true}
"""


def make_examples(home: Path, *, whole: bool = True) -> None:
    """Fill an empty folder: a run, its commitment and pack, files of records and of others.

    Salts, keys, times and paths are fixed, so that equal code makes files of equal lengths.

    Args:
        home: the folder.
        whole: let the run have attacks and a control arm, which takes three times as long.
    """
    fixed = mock.patch.multiple(
        secrets,
        token_hex=lambda size=32: "5a" * (size or 32),
        token_bytes=lambda size=32: b"Z" * (size or 32),
    )
    with fixed, contextlib.chdir(home):
        _run(Path(), RECIPE + (ATTACKS if whole else "report: {show_text: true}\n"))
    _records(home / "records")
    for make in (relearning, sampling, probe):
        (home / f"{make.__name__}.json").write_text(json.dumps(make()))
    _logs(home / "logs")


def _run(home: Path, text: str) -> None:
    """A finished run in the current folder, and its pack."""
    from wagle.evidence.collecting import collect_evidence
    from wagle.evidence.commitment import commit_recipe, write_commitment
    from wagle.evidence.signing import new_key
    from wagle.recipe.reading import load_recipe
    from wagle.run.execution import execute

    make_model("llama-tied").save_pretrained(home / "model")
    make_tokenizer().save_pretrained(home / "model")
    for name, rows in (("forget", RECORDS), ("retain", OTHERS)):
        (home / f"{name}.json").write_text(json.dumps(rows))
    (home / "whole.yaml").write_text(text)
    (home / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(home / "whole.yaml")
    run = home / "run"
    with contextlib.redirect_stderr(io.StringIO()):
        execute(recipe, run, until="before")
        made = commit_recipe(recipe, run, probes=2)
        write_commitment(made, run / "commitment.json", run / "private" / "commitment.secret")
        execute(recipe, run)
    for folder in (*run.glob("controls/*"), run):  # an arm's files are sealed by the run, too
        _steady(folder)
    new_key(home / "maker.pem")
    collect_evidence(run, home / "pack", key=home / "maker.pem")
    for folder in ("model", "base", "private/answers", "private/references"):
        shutil.rmtree(run / folder)  # as a user may, to save space


def _steady(folder: Path) -> None:
    """Fix what differs from one time to the next, and seal it anew."""
    from wagle.run.folder import RunFolder
    from wagle.system.files.atomic import write_json

    environment = folder / "environment.json"
    if environment.is_file():
        told = json.loads(environment.read_text())
        sizes = {key: 8_000_000_000 for key in told if key.endswith("_bytes")}
        write_json(environment, {**told, **sizes, "argv": ["run", "whole.yaml"]})
    for path in folder.rglob("evaluation/*.json"):
        told = json.loads(path.read_text())
        told["timing"]["seconds"] = 1.5
        write_json(path, told)
    run = RunFolder(folder)
    for stage in run.state["stages"].values():
        stage |= {"seconds": 1.5, "peak_bytes": 600_000_000}
    run.reseal([p.relative_to(folder).as_posix() for p in folder.rglob("*.json")])


def _records(home: Path) -> None:
    """Records of every kind, in every format."""
    rows: list[dict[str, Any]] = [
        {
            "question": "Who wrote it?",
            "answer": "Ada Holm.",
            "paraphrased_question": "Whose is it?",
            "perturbed_answer": ["Nobody.", "A horse."],
            "few_shot": [["Where?", "Oslo."]],
            "refusal": "I cannot say.",
        },
        {"text": "Rain fell on Oslo.", "prefix": "Once: ", "title": "x"},
        {
            "messages": [
                {"role": "user", "content": "Hello?"},
                {"from": "gpt", "value": "Good day."},
            ]
        },
        {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, -100]},
        {"prompt": "Why?", "completion": "Because.", "id": 7},
    ]
    home.mkdir()
    (home / "x.json").write_text(json.dumps(rows))
    (home / "x.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, ["question", "answer", "perturbed_answer"])
    writer.writeheader()
    writer.writerow({"question": "Who?", "answer": "Ada,\nof Oslo.", "perturbed_answer": '["No."]'})
    writer.writerow({"question": 'A "word"?', "answer": "Yes.", "perturbed_answer": ""})
    (home / "x.csv").write_text(table.getvalue())


def _logs(home: Path) -> None:
    """Logs of other tools, as small as they may be."""
    from tests.evaluation.peers.test_reading import entry, open_unlearning_log, tofu_log

    home.mkdir()
    (home / "tofu.json").write_text(json.dumps(tofu_log()))
    (home / "open_unlearning.json").write_text(json.dumps(open_unlearning_log()))
    rows = entry({str(i): {"rougeL_f1": 0.5, "score": 0.25} for i in range(3)})
    muse = {
        "forget_verbmem_ROUGE": rows,
        "retain_knowmem_ROUGE": rows,
        "extraction_strength": rows,
        "mia_min_k": {"agg_value": 0.5, "forget": rows, "holdout": rows},
    }
    (home / "muse.json").write_text(json.dumps(muse))
