"""The page of what several processes were measured to do."""

from __future__ import annotations

from typing import Any

RATIO = 0.05  # of the weights that are unlearned


def page(record: dict[str, Any]) -> str:
    """The tables as a page of the documentation."""
    lines = ["# Several processes, measured", "", "Made by `python -m bench.processes` from "]
    lines[-1] += (
        "`bench/measured/processes.json`, on two processor cores; every process has one thread."
    )
    if "demo" in record:
        runs, told = record["demo"]["runs"], record["demo"]
        lines += [
            "",
            "## The demo",
            "",
            "| processes | seconds | verdict |",
            "| ---: | ---: | --- |",
        ]
        lines += [f"| {n} | {one['seconds']:.0f} | {one['verdict']} |" for n, one in runs.items()]
        ratio = runs["1"]["seconds"] / runs["2"]["seconds"]
        lines += [
            "",
            f"Two processes take {1 / ratio:.2f} of the time of one. How far their figures are apart:",
            "",
            *_apart(told["differences"]),
            "",
            "Both ask the same model about the reference. The others were trained, in bfloat16: how a product "
            "is rounded there depends on which records share a batch, and so on how many processes share a "
            "step. In float32 twenty steps differ by less than 1e-5 (`tests/unlearning/test_processes.py`).",
        ]
    if "dealt" in record:
        verdicts = [one["verdict"] for one in record["dealt"]["runs"].values()]
        lines += [
            "",
            "With the same steps in two micro-batches each (half the `batch_size`, `accumulation: 2`), either "
            "process has one of them, rounded as one process rounds it; what is left is the order of "
            "float32 sums. "
            + ("The verdicts are equal" if len(set(verdicts)) == 1 else "NOT EQUAL: ")
            + f" ({'; '.join(dict.fromkeys(verdicts))}), and the figures are apart by:",
            "",
            *_apart(record["dealt"]["differences"]),
        ]
    if "bytes" in record:
        told = record["bytes"]
        lines += [
            "",
            "## What travels",
            "",
            f"At a ratio of {RATIO:g}, the gradients of a step of the demo model are "
            f"{told[f'{RATIO:g}'] / 1e6:.1f} MB; with all weights trained they are "
            f"{told['1'] / 1e6:.1f} MB, as with DDP, whose gradients have the size of the model "
            f"({told['all_weights'] / 1e6:.1f} MB). The share is {told['share']:.3f}.",
        ]
    if "memory" in record:
        lines += [
            "",
            "## A model in shards",
            "",
            f"Peak memory of a process in GB, for random Llamas in float32; unlearning at a ratio of {RATIO:g}.",
            "",
            "| weights | | one process | the larger of two | share |",
            "| ---: | --- | ---: | ---: | ---: |",
        ]
        for told in record["memory"].values():
            count = f"{told['weights'] / 1e9:.1f} billion"
            for what, found in told["work"].items():
                one = found["1"]["peaks"][0]["peak_gb"]
                two = max(p["peak_gb"] for p in found["2"]["peaks"])
                lines.append(f"| {count} | {what} | {one:.2f} | {two:.2f} | {two / one:.3f} |")
        lines += [
            "",
            "About 0.75 GB of every process are libraries, which no shard makes smaller, and on the way back "
            "the embedding or the head is whole twice for a moment (0.52 GB): the deeper a model, the less "
            "both weigh.",
        ]
    return "\n".join([*lines, ""])


def _apart(differences: dict[str, float]) -> list[str]:
    """The largest differences of the three evaluations, as a table."""
    lines = [
        "| model | a probability, at most | any figure, at most |",
        "| --- | ---: | ---: |",
    ]
    for role in ("reference", "before", "after"):
        own = {n: d for n, d in differences.items() if n.startswith(role)}
        likely = max((d for n, d in own.items() if n.endswith(".probability")), default=0.0)
        worst = max(own, key=lambda name: own[name], default="")
        lines.append(f"| {role} | {likely:.1e} | {own.get(worst, 0.0):.1e} (`{worst}`) |")
    return lines
