"""One model in every form in which it may be served: the figures of each beside the folder's.

    python -m bench.served --model FOLDER --json bench/measured/served.json

The model (by default the bundled demo model) is asked about the demo's forget records as a folder,
as GGUF files (run by llama.cpp where llama-cpp-python is installed, and as transformers reads
them), in 8 and 4 bits, and behind an address: a small server of the same protocol over the folder,
and, where it is installed, llama-cpp-python's own server over the f16 file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bench.completions import Completions, served
from wagle.evaluation.measuring import evaluate
from wagle.evaluation.result import Evaluation
from wagle.evaluation.served import opening
from wagle.evaluation.served.llama_cpp import has_llama_cpp
from wagle.model.loading import load_model, load_tokenizer, resolve_model
from wagle.model.quantization.kinds import LOADS, MIXED, make_file
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json

FIGURES = ("probability", "paraphrased", "extraction_strength", "exact_memorization", "rouge_l")
FORMS = ("f16", "q8_0", "q4_0", "q4_k_m", "nf4", "int8")
FOLDER = "folder"
_TOKENS = 16  # of a greedy answer


def measure(
    model: Path,
    forms: Sequence[str],
    place: Path,
    records: int,
    few: int,
    keep: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """A row per form: its figures, the largest gap of a record to the folder, seconds.

    llama-cpp-python's server sorts the whole vocabulary for every token of a prompt, so it is asked
    about ``few`` records. ``keep`` is given the rows after each one.
    """
    rows: list[dict[str, Any]] = []

    def add(what: str, named: str, count: int = records, by_llama: bool = False) -> None:
        row = _row(what, named, by_llama, model, count)
        row["largest_gap"] = _gap(row, rows[0] if rows else row)
        rows.append(row)
        keep(rows)

    add(FOLDER, str(model))
    made = {form: _file(model, place, form) for form in forms if form not in LOADS}
    for form, file in made.items():
        if file is not None and has_llama_cpp():
            add(f"{form}.gguf, llama.cpp", str(file), by_llama=True)
    told = Completions(load_model(model), load_tokenizer(model), name="served")
    with served(told) as address:
        add("endpoint of the folder", f"{address}#served")
        told.logprobs = False
        add("endpoint of the folder, texts alone", f"{address}#served")
    del told
    file = made.get("f16")
    if importlib.util.find_spec("llama_cpp.server") and file is not None:
        with _llama_server(file) as address:
            add(f"llama-cpp-python's server, f16 (n={few})", address, few)
        add(f"folder (n={few})", str(model), few)
    for form in forms:
        if form in LOADS:
            add(form, f"{form}:{model}")
        elif made[form] is not None:
            add(f"{form}.gguf, transformers", str(made[form]))
    return rows


def _gap(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of a record to the folder, by figure."""
    return {
        figure: max(abs(value - first["per_record"][figure][k]) for k, value in found.items())
        for figure, found in row["per_record"].items()
        if found
    }


def _file(model: Path, place: Path, form: str) -> Path | None:
    """The GGUF file of a form; None where this machine cannot make it."""
    file = place / f"model-{form}.gguf"
    try:
        print(f"{form}: written by {make_file(model, file, form)}", file=sys.stderr)
    except WagleError as error:
        if form not in MIXED:
            raise
        print(f"{form}: left out: {error}", file=sys.stderr)
        return None
    return file


def _row(what: str, named: str, by_llama: bool, model: Path, records: int) -> dict[str, Any]:
    started = time.perf_counter()
    with patch.object(opening, "has_llama_cpp", lambda: by_llama):
        found = ask(named, model, records)
    seconds = time.perf_counter() - started
    figures = found.figures["forget"]
    print(f"{what}: {seconds:.0f} s", file=sys.stderr)
    return {
        "form": what,
        "figures": {name: figures[name].value for name in FIGURES},
        "notes": {name: figures[name].note for name in FIGURES if figures[name].value is None},
        "per_record": {name: dict(figures[name].per_record) for name in FIGURES},
        "seconds": round(seconds, 1),
        "by": found.details["model"].get("by", "this process"),
    }


def ask(named: str, model: Path, records: int) -> Evaluation:
    """A model's evaluation on the demo's forget records."""
    return evaluate(
        named,
        load_tokenizer(model),
        forget=[*_records(records)],
        max_new_tokens=_TOKENS,
    )


def _records(count: int) -> list[dict[str, object]]:
    from wagle.data.demo import demo_records

    return demo_records("forget")[:count]


@contextlib.contextmanager
def _llama_server(file: Path) -> Iterator[str]:
    """llama-cpp-python's server on a file, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--port", str(port)]
    more = ["--logits_all", "true", "--n_ctx", "512", "--n_threads", "1", "--model_alias", "served"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*words, *more], **quiet)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1#served"
    finally:
        process.terminate()
        process.wait()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a table for the page."""
    lines = [
        f"| form | {' | '.join(name.replace('_', ' ') for name in FIGURES)} | largest gap | s |",
        f"| --- |{' ---: |' * (len(FIGURES) + 2)}",
    ]
    for row in rows:
        cells = [_cell(row["figures"][name]) for name in FIGURES]
        gap = row["largest_gap"].get("probability")
        lines.append(
            f"| {row['form']} | {' | '.join(cells)} | {'absent' if gap is None else f'{gap:.1e}'} | "
            f"{row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "absent" if value is None else f"{value:.3f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="demo", help="a model folder")
    words.add_argument("--forms", default=",".join(FORMS), help="forms, separated by commas")
    words.add_argument("--records", type=int, default=24, help="how many of the forget records")
    words.add_argument("--few", type=int, default=2, help="records for llama-cpp-python's server")
    words.add_argument("--json", help="where the raw record goes")
    given = words.parse_args()
    torch.set_num_threads(1)
    model = resolve_model(given.model)

    def keep(rows: list[dict[str, Any]]) -> None:
        if given.json:
            record = {"model": model.name, "records": given.records, "tokens": _TOKENS}
            write_json(given.json, {**record, "rows": rows})

    with tempfile.TemporaryDirectory(prefix="wagle-") as place:
        forms = given.forms.split(",")
        rows = measure(model, forms, Path(place), given.records, given.few, keep)
    print(table(rows))


if __name__ == "__main__":
    main()
