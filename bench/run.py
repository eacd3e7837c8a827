"""Speed and memory of the main job, as ratios measured in one run on the demo model.

    make bench            # prints one table, and JSON with --json

Each row states its bound. Nothing here is a timed test: machines differ, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import wagle
from wagle.data.batches import collate
from wagle.data.tokens import Encoder
from wagle.model import demo_model, load_model, load_tokenizer
from wagle.unlearning.options import Training

STEPS = 4


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    rows: list[dict[str, object]] = []

    def row(what: str, value: float, unit: str, bound: str) -> None:
        rows.append({"what": what, "value": round(value, 3), "unit": unit, "bound": bound})
        if not as_json:
            print(f"{what:<58}{value:>10.3f} {unit:<10} {bound}", flush=True)

    folder = demo_model()
    tokenizer = load_tokenizer(folder)
    model = load_model(folder)
    forget = wagle.read_records("demo:forget", name="forget")
    retain = wagle.read_records("demo:retain", name="retain")[:24]
    tokens = Encoder(tokenizer).encode([*forget, *retain])
    real = sum(len(t.ids) for t in tokens)

    def bare(size: int) -> float:
        def work() -> None:
            for start in range(0, len(tokens), size):
                part = tokens[start : start + size]
                batch = collate(part, range(len(part)))
                labels = batch["input_ids"].masked_fill(~batch["scored"], -100)
                model(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    labels=labels,
                ).loss.backward()
                model.zero_grad()

        return real / seconds(work)

    bare(8)  # warm up
    best = max(bare(size) for size in (8, 16))
    row("plain loss.backward(), best of batch 8 and 16", best, "tokens/s", "float32, full logits")
    store = [wagle.gradients(model, tokenizer, forget, retain, retain_records=24)]
    took = seconds(
        lambda: store.append(wagle.gradients(model, tokenizer, forget, retain, retain_records=24))
    )
    row("gradient store of the same records", real / took, "tokens/s", "plain backward passes")
    row("  time over that bound", took * best / real, "ratio", "1")
    ladder = [i / 10 for i in range(1, 11)]
    mask: list[wagle.Mask] = []
    took = seconds(lambda: mask.append(wagle.Mask.from_scores(store[0], ratio=ladder)))
    row("wagle score, ten-ratio mask", took, "s", "")
    with tempfile.TemporaryDirectory() as scratch:
        took = seconds(lambda: mask[0].save(Path(scratch) / "mask"))
        size = (Path(scratch) / "mask").stat().st_size
    row("  written", took, "s", "")
    row("  bytes per weight", size / mask[0].candidates, "bytes", "0.5")

    def unlearn(ratio: float | None) -> float:
        live = load_model(folder)
        stamps: list[float] = []
        wagle.unlearn(
            live,
            tokenizer,
            forget,
            retain,
            objective="grad_diff",
            mask=None if ratio is None else wagle.Mask.from_scores(store[0], ratio=ratio),
            training=Training(max_steps=STEPS, learning_rate=1e-5, precision="bfloat16"),
            on_step=lambda _: stamps.append(time.perf_counter()),
        )
        return (stamps[-1] - stamps[0]) / (STEPS - 1)

    dense = unlearn(None)
    row("unlearning step, all weights", dense, "s", "8 + 8 records, bfloat16 autocast")
    for ratio in (0.05, 0.5):
        row(f"  ratio {ratio} over that", unlearn(ratio) / dense, "ratio", "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    row("peak memory of all of this", peak, "GB", "")
    if as_json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
