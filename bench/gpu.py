"""Every path that computes on a GPU, beside the same on the CPU: one command, one card.

    python -m bench.gpu --json gpu.json

Each part runs in two processes of its own: one that sees the card and one that does not. The table
shows the largest relative difference of their figures and the most that rounding explains. The model
is the demo model, or ``--model FOLDER``. Exit code 1 if a part differs by more, 2 without a GPU;
``--dry`` compares the CPU with itself, to try the command where there is no card.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import say
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json

Figures = dict[str, float]
RECORDS = [
    {"question": f"What is the number of house {i}?", "answer": f"It is house number {7 * i + 3}."}
    for i in range(16)
]
FORGET, RETAIN = RECORDS[:8], RECORDS[8:]


@dataclass(frozen=True)
class Part:
    """One path: what to compute on either device, and how far the two may be apart.

    Attributes:
        compute: gives the figures, from a model folder and an empty folder to work in.
        tolerance: the largest relative difference that rounding explains.
        needs: a package that it needs, or "".
    """

    compute: Callable[[str, Path], Figures]
    tolerance: float
    needs: str = ""


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _gradients(model: str, work: Path, **how: Any) -> Figures:
    """The norm of every tensor's gradients; and that the memory they were copied from was pinned."""
    import wagle
    from wagle.model.loading import load_tokenizer

    given = {"device": _device(), "dtype": "float32", **how}
    quantities = ["grad_forget", "grad_retain", "square_retain", "input_square"]
    store = wagle.gradients(
        model,
        load_tokenizer(model),
        FORGET,
        RETAIN,
        path=work / "store",
        quantities=quantities,
        **given,
    )
    return {
        f"{q} {n}": float(store.get(q, n).float().norm())
        for q in store.quantities
        for n in store.shapes
        if store.has(q, n)
    }


def whole(model: str, work: Path) -> Figures:
    """Gradients with the model in memory."""
    return _gradients(model, work, engine="whole")


def stream(model: str, work: Path) -> Figures:
    """Gradients block by block, each copied to the card from pinned memory."""
    return _gradients(model, work, engine="stream")


def autocast(model: str, work: Path) -> Figures:
    """Gradients with matrix products in bfloat16."""
    return _gradients(model, work, engine="whole", precision="bfloat16")


def halves(model: str, work: Path) -> Figures:
    """Gradients of weights held in bfloat16."""
    return _gradients(model, work, engine="stream", dtype="bfloat16")


def _trained(model: str, **how: Any) -> tuple[Any, Any]:
    """A model unlearned for a few steps, and what happened."""
    import wagle
    from wagle.model.loading import load_model, load_tokenizer
    from wagle.recipe.sections.training import Training

    live, tokenizer = load_model(model), load_tokenizer(model)
    store = wagle.gradients(live, tokenizer, FORGET, None, quantities=[])
    mask = wagle.Mask.from_scores(store, score="random", ratio=0.1)
    training = Training(max_steps=6, learning_rate=1e-4, batch_size=4, **how.pop("training", {}))
    named = {"objective": "npo", "stop_when": [], "training": training, **how}
    result = wagle.unlearn(live, tokenizer, FORGET, RETAIN, mask=mask, **named)
    return live, result


def _history(result: Any) -> Figures:
    return {
        f"{name} {one['step']}": float(one[name])
        for one in result.history
        for name in ("forget_nll", "retain_nll", "grad_norm")
        if name in one
    }


def masked(model: str, work: Path) -> Figures:
    """Unlearning of a tenth of the weights; whatever is not selected was checked not to move."""
    del work
    return _history(_trained(model)[1])


def wrappers(model: str, work: Path) -> Figures:
    """Noise drawn on the device, gradient surgery, and Sophia's curvature."""
    del work
    sophia = {"optimizer": "SophiaG", "curvature_every": 2}
    found: Figures = {}
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("gru", {"wrapper": "gru"}),
        ("sam", {"wrapper": "sam"}),
        ("row_norm", {"dynamic_mask": "row_norm"}),
        ("rmu", {"objective": "rmu", "objective_settings": {"layer": 1}}),
        ("sophia", {"training": sophia}),
    )
    for name, how in cases:
        found |= {f"{name} {k}": v for k, v in _history(_trained(model, **how)[1]).items()}
    return found


def eight_bits(model: str, work: Path) -> Figures:
    """AdamW whose state is kept in 8 bits."""
    del work
    result = _trained(model, training={"optimizer": "AdamW8bit"})[1]
    return {k: v for k, v in _history(result).items() if "nll" in k}


def patches(model: str, work: Path) -> Figures:
    """A patch of the unlearned model, applied to the base again: the same weights."""
    from wagle.model.saving import save_model
    from wagle.model.weights import fingerprint
    from wagle.patch.application import apply
    from wagle.patch.extraction import extract

    live, result = _trained(model)
    save_model(live.cpu(), model, work / "after")
    extract(model, work / "after", work / "patch.safetensors")
    apply(model, work / "patch.safetensors", work / "again")
    same = fingerprint(work / "again") == fingerprint(work / "after")
    return {"changed": float(result.changed), "same": float(same)}


def evaluation(model: str, work: Path) -> Figures:
    """Probabilities, greedy answers and membership, as an evaluation asks for them."""
    import wagle
    from wagle.model.loading import load_model, load_tokenizer

    live: Any = load_model(model)
    live.to(_device())
    found = wagle.evaluate(
        live,
        load_tokenizer(model),
        forget=FORGET,
        retain=RETAIN,
        cache=work / "cache",
        max_new_tokens=16,
    )
    return {
        f"{name} {metric}": float(figure.value)
        for name, figures in found.figures.items()
        for metric, figure in figures.items()
        if isinstance(figure.value, float)
    }


PARTS = {
    "whole": Part(whole, 1e-3),
    "stream": Part(stream, 1e-3),
    "autocast": Part(autocast, 0.1),
    "halves": Part(halves, 0.1),
    "masked": Part(masked, 1e-2),
    "wrappers": Part(wrappers, 5e-2),
    "eight_bits": Part(eight_bits, 5e-2, "bitsandbytes"),
    "patches": Part(patches, 1e-2),
    "evaluation": Part(evaluation, 1e-2),
}


def difference(one: Figures, other: Figures) -> tuple[float, str]:
    """The largest relative difference, and the figure that it is in."""
    if one.keys() != other.keys():
        return math.inf, "the names of the figures"
    scales = {name: max(abs(one[name]), abs(other[name]), 1e-6) for name in one}
    found = {name: abs(one[name] - other[name]) / scales[name] for name in one}
    worst = max(found, key=lambda name: found[name])
    return found[worst], worst


def run(name: str, model: str, *, card: bool) -> tuple[Figures, float]:
    """The figures of a part in a process of its own, and its seconds."""
    hidden = {} if card else {"CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as work:
        command = [
            sys.executable,
            "-m",
            "bench.gpu",
            "--child",
            name,
            "--model",
            model,
            "--work",
            work,
        ]
        began = time.perf_counter()
        subprocess.run(command, env={**os.environ, **hidden}, check=True, stdout=sys.stderr)
        return read_json(Path(work) / "figures.json"), time.perf_counter() - began


def main(options: Sequence[str] | None = None) -> None:
    """Run every part on both devices, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model folder; the demo model by default")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--json", help="the record to write")
    parser.add_argument("--dry", action="store_true", help="without a card: the CPU beside itself")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args(options)
    import torch

    from wagle.model.demo import demo_model

    model = asked.model or str(demo_model())
    if asked.child:
        made = PARTS[asked.child].compute(model, Path(asked.work))
        write_json(Path(asked.work) / "figures.json", made)
        return
    if not (torch.cuda.is_available() or asked.dry):
        raise SystemExit("bench.gpu: there is no GPU here; --dry tries the command without one")
    rows: dict[str, Any] = {}
    for name in asked.only.split(","):
        part = PARTS[name]
        if part.needs and importlib.util.find_spec(part.needs) is None:
            rows[name] = {"skipped": f"needs {part.needs}"}
            continue
        say(name)
        (here, fast), (there, slow) = run(name, model, card=True), run(name, model, card=False)
        apart, where = difference(here, there)
        rows[name] = {
            "figures": len(here),
            "difference": apart,
            "in": where,
            "tolerance": part.tolerance,
            "within": apart <= part.tolerance,
            "seconds": [round(fast, 1), round(slow, 1)],
        }
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: a dry run"
    record = {"card": card, "torch": torch.__version__, "parts": rows}
    if asked.json:
        write_json(asked.json, record)
    print(table(record))
    if not all(row.get("within", True) for row in rows.values()):
        raise SystemExit(1)


def table(record: dict[str, Any]) -> str:
    """The record as a table of Markdown."""
    lines = [
        f"Card: {record['card']}; torch {record['torch']}",
        "",
        "| part | figures | largest difference | at most | within | seconds, card and CPU |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, row in record["parts"].items():
        if "skipped" in row:
            lines.append(f"| {name} | | {row['skipped']} | | | |")
            continue
        fast, slow = row["seconds"]
        lines.append(
            f"| {name} | {row['figures']} | {row['difference']:.1e} ({row['in']}) | "
            f"{row['tolerance']:g} | {'yes' if row['within'] else 'NO'} | {fast:.0f}, {slow:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
