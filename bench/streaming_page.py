"""The page of what training and asking by blocks were measured to do."""

from __future__ import annotations

from typing import Any

TITLE = "# A model with its blocks on disk, measured"


def page(record: dict[str, Any]) -> str:
    """The tables as a page of the documentation."""
    lines = [
        TITLE,
        "",
        "Made by `python -m bench.streaming` from `bench/measured/streaming.json`, on two",
    ]
    lines.append("processor cores without a GPU. GB are 1e9 bytes.")
    if "small" in record:
        lines += ["", *_small(record["small"])]
    if "depth" in record:
        lines += ["", *_depth(record["depth"])]
    trained: dict[str, Any] = {name: record[name] for name in ("7b", "7b-npo") if name in record}
    if trained:
        lines += ["", *_seven(trained)]
    if "7b-asked" in record:
        lines += ["", *_asked(record["7b-asked"])]
    return "\n".join(lines) + "\n"


def _small(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {one['step_s']:.2f} | {one['peak_gb']:.2f} | {one['anonymous_gb']:.2f} |"
        for name, one in ((name, found[name]) for name in ("whole", "stream"))
    ]
    return [
        "## A model that would fit",
        "",
        "SmolLM2-135M in float32, ratio 0.05, 8 + 8 records a step, GradDiff.",
        "",
        "| engine | seconds a step | peak memory, GB | without pages of files, GB |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        f"A step by `stream` takes {found['step_ratio']:.2f} of the time of one by `whole`; the losses differ "
        f"by at most {found['largest_difference']:.1e}.",
    ]


def _depth(found: dict[str, Any]) -> list[str]:
    depths = [name for name in found if name.isdigit()]
    rows = [f"| {n} | {found[n]['peak_gb']:.2f} | {found[n]['anonymous_gb']:.2f} |" for n in depths]
    return [
        "## Depth",
        "",
        "Llamas of one width (1,024) and 8, 16 and 32 blocks, two steps by `stream`.",
        "",
        "| blocks | peak memory, GB | without pages of files, GB |",
        "| ---: | ---: | ---: |",
        *rows,
        "",
        f"The peaks differ by {found['spread']:.1%}.",
    ]


def _seven(found: dict[str, dict[str, Any]]) -> list[str]:
    names = {"7b": "GradDiff", "7b-npo": "NPO"}
    rows = [
        f"| {names[name]} | {one['step_s']:.0f} | {one['bound_s']:.0f} | {one['over_bound']:.2f} | "
        f"{one['read_step_gb']:.1f} | {one['moved_gb']['read']:.0f} / {one['moved_gb']['written']:.0f} | "
        f"{one['anonymous_gb']:.2f} | {one['peak_gb']:.2f} |"
        for name, one in found.items()
    ]
    one = next(iter(found.values()))
    limited = "".join(
        f"The process lived in a memory cgroup of {one['limit_gb']:g} GB, which counts pages of files, "
        "too, and gives them back."
        for one in [one]
        if "limit_gb" in one
    )
    return [
        "## Seven billion weights",
        "",
        "A random Llama of the 7B shape (6.7 billion weights, bfloat16, 13.5 GB on disk), ratio 0.05, "
        "2 + 2 records of 62 tokens a step, trained by `stream`. " + limited,
        "",
        "| objective | s a step | bound, s | over the bound | weights read a step, GB | read / written in all, "
        "GB | memory without files, GB | peak with files, GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        "The bound is the longer of the arithmetic (8 operations a weight and token: forward, once more, and "
        f"back) at {one['matmul_flops'] / 1e9:.0f} GFLOP/s, the measured rate of a bfloat16 matrix product, "
        f"and of the reading at {one['disk_gb_s']['read']:.2f} GB/s, the measured rate of the disk.",
    ]


def _asked(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {one['requests']} | {one['readings']} | {one['read_gb']:.1f} | {one['seconds']:.0f} |"
        for name, one in ((name, found[name]) for name in ("likelihoods", "greedy"))
    ]
    return [
        "The same model asked about 4 + 4 records: how likely the second half of each is, and eight tokens "
        "after the first half.",
        "",
        "| | requests | readings of the model | read, GB | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"That is {found['greedy']['tokens_s']:.2f} tokens a second for all texts together; memory without "
        f"files is {found['anonymous_gb']:.2f} GB, with them {found['peak_gb']:.2f} GB.",
    ]
