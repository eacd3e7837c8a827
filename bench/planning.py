"""What ``wagle plan`` says beside what is measured: memory and time of stages, each in its own process.

    python -m bench.planning --scratch FOLDER --json bench/measured/planning.json
    python -m bench.planning --from bench/measured/planning.json --out docs/planning-measured.md

``--only demo,demo-0.05,demo-dense,demo-stream,1b,1b-stream,7b,7b-stream`` measures some of the rows;
what the record has of the rest stays, and a stage that the record has is not run again. ``--replan``
runs nothing: it plans the measured stages again, at the rates of their time. Before every stage the plan is made with ``--measure``, so that both see the machine in one state.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import Memory, say
from bench.models import make_folder
from wagle.recipe.reading import load_recipe
from wagle.recipe.recipe import Recipe
from wagle.system.files.atomic import write_json, write_text
from wagle.system.files.reading import read_json

MEMORY, TIME = 0.15, 1.5  # how far a plan may be off
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}
SHAPES: dict[str, dict[str, Any]] = {  # of the tables: no weights of these are needed
    "Llama-3.1-8B": {
        **LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
    },
    "Llama-3.1-70B": {
        **LLAMA,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_hidden_layers": 80,
    },
}
SETTINGS = [  # of the tables
    "model.dtype=bfloat16",
    "model.max_length=128",
    "unlearning.batch_size=2",
    "unlearning.max_steps=100",
    "finetune=null",
    "reference=none",
]
_WORDS = 1000  # of the tokenizer of a model with random weights
_FULL = ("teach", "reference", "before", "gradients", "mask", "unlearn", "patch", "after")
_PART = ("before", "gradients", "mask", "unlearn", "patch", "after")


class Row(NamedTuple):
    """A run to measure: its model, the settings beyond the common ones, and its stages."""

    model: str
    settings: tuple[str, ...]
    stages: tuple[str, ...]


_STREAM = ("attribution.engine=stream", "unlearning.engine=stream", "evaluation.engine=stream")
ROWS: dict[str, Row] = {
    "demo": Row("demo", (), _FULL),
    "demo-0.05": Row("taught", ("attribution.ratio=0.05",), ("gradients", "unlearn", "patch")),
    "demo-dense": Row("taught", ("attribution.ratio=1.0",), ("unlearn",)),
    "demo-stream": Row("taught", _STREAM, ("gradients", "unlearn")),
    "1b": Row("tinyllama-1.1b", (), _PART),
    "1b-stream": Row("tinyllama-1.1b", _STREAM, _PART),
    "7b": Row("llama-2-7b", (), _PART),
    "7b-stream": Row("llama-2-7b", _STREAM, _PART),
}


# ----- recipes -----


def recipe_of(name: str, scratch: Path) -> Recipe:
    """The recipe of a row; a model of random weights and its records are made if needed."""
    row = ROWS[name]
    if row.model == "demo":
        return load_recipe("bundled:demo", list(row.settings))
    if row.model == "taught":
        base = scratch / "run-demo" / "base"
        own = ["finetune=null", "reference=none", "unlearning.when_unknown=go"]
        own += [f"model.path={base}", "evaluation.generate=false", "evaluation.records=4"]
        return load_recipe("bundled:demo", [*own, *row.settings])
    folder = scratch / row.model
    if not folder.exists():
        say(f"writing {row.model}")
        make_folder(row.model, folder)
        _make_tokenizer(folder)
        for number, what in enumerate(("forget", "retain")):
            write_json(scratch / f"{what}.json", _records(number))
    recipe = {
        "name": name,
        "model": {"path": str(folder), "dtype": "bfloat16"},
        "reference": "none",
        "forget": str(scratch / "forget.json"),
        "retain": str(scratch / "retain.json"),
        "attribution": {"score": "grad_ratio", "ratio": 0.05, "precision": "bfloat16"},
        "unlearning": {
            "objective": "grad_diff",
            "batch_size": 2,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "precision": "bfloat16",
            "stop_when": [],
            "when_unknown": "go",
        },
        "evaluation": {"max_new_tokens": 8, "precision": "bfloat16"},
    }
    path = scratch / f"{name}.yaml"
    write_text(path, json.dumps(recipe))
    return load_recipe(path, list(row.settings))


def _make_tokenizer(folder: Path) -> None:
    """A tokenizer of made-up words, which every vocabulary has room for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<end>", "?", *(f"w{i}" for i in range(_WORDS))])}
    made = Tokenizer(models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(folder)


def _records(seed: int) -> list[dict[str, str]]:
    drawn = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(f"w{drawn.randrange(_WORDS)}" for _ in range(words))

    return [{"question": text(24), "answer": text(32)} for _ in range(4)]


# ----- measuring -----


def in_process(work: str, name: str, stage: str, scratch: Path) -> dict[str, Any]:
    """Do one piece of work in a new process, which prints its JSON last."""
    command = [sys.executable, "-m", "bench.planning", "--work", work, "--only", name]
    command += ["--stage", stage, "--scratch", str(scratch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {work} of {name} {stage} failed; see the lines above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def work_plan(name: str, stage: str, scratch: Path) -> dict[str, Any]:
    """What the plan says about a stage."""
    from wagle.run.planning.plan import make_plan

    plan = make_plan(recipe_of(name, scratch), scratch / f"run-{name}", measure=True)
    return {**plan["stages"][stage], "rates": plan["machine"]["rates"]}


def work_stage(name: str, stage: str, scratch: Path) -> dict[str, Any]:
    """Run a stage and what is missing before it; its seconds and this process's peak memory."""
    from wagle.run.execution import execute

    with Memory() as memory:
        run = execute(recipe_of(name, scratch), scratch / f"run-{name}", until=stage)
    state = run.state["stages"][stage]
    return {"seconds": state["seconds"], **memory.figures()}


WORKS = {"plan": work_plan, "stage": work_stage}


def measure(name: str, scratch: Path, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stages of a row, each planned and then run; yields the row after every stage."""
    for stage in ROWS[name].stages:
        if stage in known:
            continue
        if stage != "teach":  # what it needs is not measured with it
            in_process("stage", name, _before(stage), scratch)
        say(f"{name}: {stage}")
        planned = in_process("plan", name, stage, scratch)
        known[stage] = {"planned": planned, "measured": in_process("stage", name, stage, scratch)}
        yield known


def _before(stage: str) -> str:
    """The stage that comes before one in a run."""
    from wagle.run.stages.table import STAGES

    names = list(STAGES)
    return names[names.index(stage) - 1]


def replan(rows: dict[str, Any], scratch: Path) -> None:
    """Plan the measured stages with this version's formulas and the rates measured at the time."""
    from wagle.run.planning.formulas import Need, seconds
    from wagle.run.planning.plan import make_plan

    for name, stages in rows.items():
        plan = make_plan(recipe_of(name, scratch), scratch / f"run-{name}")
        for stage, both in stages.items():
            rates, made = both["planned"]["rates"], plan["stages"][stage]
            numbers = {key: made[key] for key in Need.__dataclass_fields__ if key in made}
            both["planned"] = {**made, "seconds": seconds(Need(**numbers), rates), "rates": rates}


def tables(scratch: Path) -> dict[str, str]:
    """What ``wagle plan`` prints for models of which only the configuration is there."""
    from wagle.run.planning.plan import make_plan
    from wagle.run.planning.table import plan_table

    found = {}
    for name, config in SHAPES.items():
        folder = scratch / "shapes" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)
        recipe = load_recipe("bundled:demo", [f"model.path={folder}", *SETTINGS])
        plan = make_plan(recipe, scratch / "none")
        plan["model"]["path"] = name
        found[name] = plan_table(plan)
    return found


# ----- the page -----


def compared(record: Mapping[str, Any]) -> list[list[str]]:
    """A line per row and stage: planned and measured memory and seconds, and their ratios."""
    lines = []
    for name, stages in record.get("rows", {}).items():
        for stage, both in stages.items():
            plan, found = both["planned"], both["measured"]
            peak, planned = found["peak_gb"], plan["peak"] / 1e9
            near = abs(planned / peak - 1) <= MEMORY
            slow = plan["seconds"] / max(found["seconds"], 0.01)
            close = 1 / TIME <= slow <= TIME
            lines.append(
                [
                    name,
                    stage,
                    f"{planned:.2f}",
                    f"{peak:.2f}",
                    f"{planned / peak:.2f}" + ("" if near else " *"),
                    f"{plan['seconds']:.1f}",
                    f"{found['seconds']:.1f}",
                    f"{slow:.2f}" + ("" if close else " *"),
                ]
            )
    return lines


_HEADS = ["run", "stage", "GB planned", "measured", "ratio", "s planned", "measured", "ratio"]


def page(record: Mapping[str, Any]) -> str:
    """The page of what was planned and what was measured."""
    lines = compared(record)
    within = sum("*" not in line[4] for line in lines), sum("*" not in line[7] for line in lines)
    text = [
        "# What was planned, and what was measured",
        "",
        "Made by `python -m bench.planning`. Each stage ran in a process of its own; memory is its peak",
        "of resident memory (VmHWM), seconds are the stage's. The plan was made just before, with",
        f"`--measure`. Within 15 % of the memory: {within[0]} of {len(lines)}; within a factor of 1.5 of",
        f"the time: {within[1]} of {len(lines)}; the others have a star. The load of the machine just",
        f"before: {record.get('load', '?')} of {record.get('cores', '?')} cores.",
        "",
        "| " + " | ".join(_HEADS) + " |",
        "|" + " --- |" * len(_HEADS),
        *("| " + " | ".join(line) + " |" for line in lines),
    ]
    if record.get("replanned"):
        said = "Planned again after measuring, with later formulas, at the rates measured then: some terms"
        text += ["", said, "(mask, patch, looks) were corrected by these very figures."]
    for name, table in record.get("tables", {}).items():
        text += [
            "",
            f"## {name}",
            "",
            f"`wagle plan demo model.path=FOLDER {' '.join(SETTINGS)}`, where",
        ]
        text += ["FOLDER holds only a `config.json`:", "", "```", table, "```"]
    return "\n".join(text) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure the rows asked for, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--work", choices=sorted(WORKS))
    parser.add_argument("--stage", default="")
    parser.add_argument("--replan", action="store_true", help=replan.__doc__)
    asked = parser.parse_args(arguments)
    if asked.work:
        print(json.dumps(WORKS[asked.work](asked.only, asked.stage, asked.scratch)))
        return
    source = asked.source or asked.json
    record = read_json(source) if source and source.is_file() else {}
    if asked.json:
        asked.scratch.mkdir(parents=True, exist_ok=True)
        rows = record.setdefault("rows", {})
        if asked.replan:
            replan(rows, asked.scratch)
            record["replanned"] = True
        else:
            record |= {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
        for name in () if asked.replan else asked.only.split(","):
            for found in measure(name, asked.scratch, rows.get(name, {})):
                rows[name] = found
                write_json(asked.json, record)
        record["tables"] = tables(asked.scratch)
        write_json(asked.json, record)
    if asked.out:
        write_text(asked.out, page(record))


if __name__ == "__main__":
    main()
