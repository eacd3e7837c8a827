"""A golden record: what tiny runs of every kind produce, as digests.

A change that only moves code leaves the record unchanged. The record belongs to one machine: the
last bits of weights depend on the processor's matrix products, so make it before a change and
compare it afterwards, on the same machine::

    python -m bench.golden --out before.json
    python -m bench.golden --against before.json

``bench/measured/golden.json`` is the record of the commit before the rooms were made.

Salts are fixed; times and sentences are left out. Everything else that a run writes is compared, byte
by byte or, where a file holds these, value by value.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import re
import runpy
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer

_TIMES = re.compile(
    r"(^|_)(seconds|time|at|date|created|started|finished|when)$|^peak_bytes$|^files$"
)
_FIGURE = re.compile(r"[-+\u2212]?\d+\.\d+(?:e[-+]?\d+)?")
# versions, command lines, sentences; seals are digests of files that hold times
_LEFT_OUT = {"wagle", "argv", "note", "reasons", "seals", "seal"}
_MEASURED = re.compile(r" (s|min|h|[kMG]B)$")  # cells that hold a time or a peak of memory
_TRAINING = {"learning_rate": 5e-3, "batch_size": 4}
_GENERAL = [
    {"question": f"What comes after the number {n}?", "answer": f"It is the number {n + 1}."}
    for n in range(6)
]
SCORES = {
    "wagle": {},
    "wagle_refusal": {},
    "wagle_gauss_newton": {},
    "fisher": {},
    "hessian_free": {"scope": "tensor"},
    "snip_forget": {"scope": "block"},
    "grad_forget": {"scope": "row", "exclude": ["*norm*"]},
    "grad_ratio": {"ratio": [0.01, 0.1, 0.5], "use": 0.1},
    "magnitude": {},
    "random": {},
    "wanda": {},
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grad_diff": {},
    "grad_ascent": {"retain_term": "none"},
    "npo": {"retain_term": "kl", "full_reference": "topk"},
    "simnpo": {"wrapper": "gru"},
    "dpo": {"evaluate_every": 1},
    "po": {"best": "auto"},
    "rmu": {"objective_settings": {"layer": 1}},
    "wga": {"wrapper": "sam"},
    "undial": {},
    "forget_finetune": {"wrapper": "task_vector"},
    "satimp": {"dynamic_mask": "row_norm", "optimizer": "SophiaG"},
    "max_entropy": {"dynamic_mask": "sign_agreement"},
}


def _rows(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "paraphrased_question": f"{row['question']} Tell me.",
            "paraphrased_answer": f"I say: {row['answer']}",
            "perturbed_answer": ["I say: no.", "I say: a horse.", f"I say: {i}."],
        }
        for i, row in enumerate(rows)
    ]


def _prepare(home: Path) -> None:
    make_model("llama-tied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    for name, rows in {
        "forget": RECORDS[:4],
        "more": RECORDS[4:],
        "retain": OTHERS[:5],
        "heldout": OTHERS[5:],
        "general": _GENERAL,
        "all": RECORDS + OTHERS,
    }.items():
        (home / f"{name}.json").write_text(json.dumps(_rows(rows)))


def _recipes(home: Path) -> dict[str, dict[str, Any]]:
    """The recipes by kind, in the order in which they run."""
    sets = {
        "forget": str(home / "forget.json"),
        "retain": str(home / "retain.json"),
        "retain_heldout": str(home / "heldout.json"),
    }
    unlearning = {**_TRAINING, "epochs": 4, "check_every": 1}
    whole = {
        "model": str(home / "tiny"),
        "reference": "untaught",
        **sets,
        "finetune": {**_TRAINING, "epochs": 10, "sets": ["forget", "retain", "records"]}
        | {"records": str(home / "more.json")},
        "unlearning": unlearning,
        "evaluation": {"max_new_tokens": 8},
        "report": {"show_text": True},
    }
    taught = {key: value for key, value in whole.items() if key not in {"finetune", "reference"}}
    taught["model"] = str(home / "runs" / "masked" / "base")
    attacks = [
        {"name": "relearning", "settings": {"records": "exact", "share": 0.5, "steps": [0, 2]}},
        {"name": "quantization", "settings": {"methods": ["int8", "int4"], "group_size": 16}},
        {"name": "sampling", "settings": {"samples": 2}},
        {"name": "prompts"},
        {"name": "probe", "settings": {"readings": ["forget_or_holdout"]}},
    ]
    recipes: dict[str, dict[str, Any]] = {
        "masked": {**whole, "attribution": {"ratio": [0.2, 0.5], "use": 0.5}},
        "controls": {
            **whole,
            "reference": "retrained",
            "general": str(home / "general.json"),
            "attribution": {"ratio": 0.5},
            "attacks": attacks,
            "controls": ["random", "dense"],
            "patch": {"undo": True},
        },
        "stream": {
            **taught,
            "attribution": {"engine": "stream", "ratio": 0.3, "store_dtype": "bfloat16"},
        },
        "dense": {**taught, "attribution": {"ratio": 1.0}},
        "lora": {**taught, "unlearning": {**unlearning, "lora": {"rank": 2}}},
        "masked_lora": {
            **taught,
            "attribution": {"ratio": 0.5},
            "unlearning": {**unlearning, "lora": {"rank": 2, "masked": True}},
        },
        "second": {
            **taught,
            "model": str(home / "runs" / "masked" / "model"),
            "after": str(home / "runs" / "masked"),
            "forget": str(home / "more.json"),
            "attribution": {"ratio": 0.5},
        },
    }
    for score, settings in SCORES.items():
        recipes[f"score-{score}"] = {**taught, "attribution": {"score": score, **settings}}
    for objective, settings in OBJECTIVES.items():
        own = {**_TRAINING, "objective": objective, "max_steps": 3, **settings}
        recipes[f"objective-{objective}"] = {
            **taught,
            "attribution": {"ratio": 0.5},
            "unlearning": own,
            "evaluation": {"generate": False},
        }
    return {name: {"name": name.replace("_", "-"), **r} for name, r in recipes.items()}


def _commands(home: Path) -> dict[str, list[str]]:
    """The command lines, by name, that print JSON or leave files in runs/."""
    runs = home / "runs"
    base, model = str(runs / "masked" / "base"), str(runs / "masked" / "model")
    mask, patch = str(runs / "masked" / "mask.safetensors"), str(home / "made" / "p.safetensors")
    undo, other = str(home / "made" / "undo.safetensors"), str(runs / "controls")
    comparison = ["--arms", "wagle,random,complement,dense,lora", "--units", "1", "--trials", "2"]
    return {
        "print": ["run", str(runs / "masked"), "--json", "--no-fail"],
        "evaluate": [
            "evaluate",
            model,
            "--benchmark",
            "qa",
            f"forget={home / 'forget.json'}",
            f"retain={home / 'retain.json'}",
            "evaluation.max_new_tokens=8",
            "--before",
            base,
            "--reference",
            str(home / "tiny"),
            "--json",
            "--no-fail",
        ],
        "mask-show": ["mask", "show", mask, "--json"],
        "mask-compare": [
            "mask",
            "compare",
            mask,
            f"{runs / 'stream' / 'mask.safetensors'}",
            "--at",
            "0.5",
            "--json",
        ],
        "mask-export": ["mask", "export", mask, "--at", "0.2", "-o", str(home / "made" / "m.pt")],
        "patch-extract": ["patch", "extract", base, model, "-o", patch, "--undo", undo],
        "patch-apply": ["patch", "apply", base, patch, "-o", str(home / "made" / "applied")],
        "patch-undo": ["patch", "undo", model, undo, "-o", str(home / "made" / "undone")],
        "patch-verify": [
            "patch",
            "verify",
            f"{other}/base",
            f"{other}/model",
            "--mask",
            f"{other}/mask.safetensors",
            "--patch",
            f"{other}/patch.safetensors",
        ],
        "ledger": ["ledger", str(runs / "second"), "--json"],
        "compare": [
            "compare",
            str(home / "compare.yaml"),
            *comparison,
            "--steps",
            "3",
            "--json",
            "--out",
            str(runs / "compare"),
        ],
    }


def _wagle(arguments: list[str]) -> str:
    """Run one command in this process, and return what it prints."""
    printed = io.StringIO()
    logger = logging.getLogger("wagle")
    with contextlib.redirect_stdout(printed), mock.patch.object(sys, "argv", ["wagle", *arguments]):
        try:
            runpy.run_module("wagle", run_name="__main__")
        except SystemExit as stopped:
            if stopped.code:
                raise RuntimeError(f"wagle {' '.join(arguments)}: exit {stopped.code}") from None
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    return printed.getvalue()


def _plain(value: Any, home: Path) -> Any:
    """JSON without times, and without the folder that this record was made in."""
    if isinstance(value, dict):
        if set(value) == {"seconds", "peak_bytes", "bytes"}:  # from the report, which shows times
            return {}
        return {
            key: _plain(one, home)
            for key, one in value.items()
            if not _TIMES.search(key) and key not in _LEFT_OUT
        }
    if isinstance(value, list):
        return [_plain(one, home) for one in value]
    return value.replace(str(home), "HOME") if isinstance(value, str) else value


def _digest_of(path: Path, home: Path) -> str:
    if path.suffix == ".json":
        text = json.dumps(_plain(json.loads(path.read_text()), home), sort_keys=True)
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        text = "\n".join(
            json.dumps(_plain(x, home), sort_keys=True) for x in lines if "warning" not in x
        )
    elif path.suffix == ".html":
        cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", path.read_text(), re.S)
        text = "\n".join(
            n for cell in cells if not _MEASURED.search(cell) for n in _FIGURE.findall(cell)
        )
    elif path.suffix == ".yaml":
        text = path.read_text().replace(str(home), "HOME")
    else:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(text.encode()).hexdigest()


def _files(home: Path) -> dict[str, str]:
    """The digests of everything that the runs wrote."""
    left_out = {"environment.json", "salt", ".lock", "study.db"}
    return {
        str(path.relative_to(home)): _digest_of(path, home)
        for folder in ("runs", "made")
        for path in sorted((home / folder).rglob("*"))
        if path.is_file()
        and path.name not in left_out
        and not {"answers", "references"} & set(path.relative_to(home).parts[:-1])
    }


def golden_record(home: Path) -> dict[str, str]:
    """Run everything in ``home``; returns digests of files, and of what each command prints."""
    torch.set_num_threads(1)
    _prepare(home)
    found: dict[str, str] = {}
    fixed = mock.patch.multiple(
        secrets,
        token_hex=lambda size=32: "5a" * (size or 32),
        token_bytes=lambda size=32: b"Z" * (size or 32),
    )
    with fixed, contextlib.chdir(home):
        for name, recipe in _recipes(home).items():
            file = home / f"{name}.yaml"
            file.write_text(yaml.safe_dump(recipe))
            command = "attribute" if name.startswith("score-") else "run"
            _wagle([command, str(file), "--out", str(home / "runs" / name)])
        comparison = {
            "name": "tiny",
            "model": str(home / "tiny"),
            "reference": "untaught",
            "forget": {"source": str(home / "all.json"), "take": 6},
            "retain": "complement",
            "finetune": {**_TRAINING, "epochs": 6},
            "attribution": {"ratio": 0.5},
            "unlearning": {**_TRAINING, "objective": "npo", "max_steps": 3, "lora": {"rank": 2}},
        }
        (home / "compare.yaml").write_text(yaml.safe_dump(comparison))
        for name, arguments in _commands(home).items():
            printed = _wagle(arguments)
            if "--json" in arguments:
                text = json.dumps(_plain(json.loads(printed), home), sort_keys=True)
                found[f"printed by {name}"] = hashlib.sha256(text.encode()).hexdigest()
    return {**_files(home), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="where to write the record")
    parser.add_argument("--against", help="a record made on this machine; exit 1 if they differ")
    parser.add_argument("--keep", help="an empty folder in which to keep the runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        home = Path(asked.keep or scratch)
        home.mkdir(parents=True, exist_ok=True)
        found = golden_record(home.resolve())
    if asked.out:
        Path(asked.out).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    if asked.against:
        before = json.loads(Path(asked.against).read_text())
        differ = sorted(n for n in {*before, *found} if before.get(n) != found.get(n))
        for name in differ:
            how = "missing" if name not in found else "new" if name not in before else "differs"
            print(f"{how:8} {name}")
        print(f"{len(before)} digests before, {len(found)} now, {len(differ)} differ")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
