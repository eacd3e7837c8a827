"""The rows of the benchmark: what was measured, with its bound.

A row names the measurements that it needs and turns their figures into lines; nothing is measured
here, so a row can be tested with a few numbers. To add one: a function here, its entry in ROWS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from bench import patches
from bench.lines import Line, at_least, at_most

Known: TypeAlias = Mapping[str, Mapping[str, Any]]
DEMO_WEIGHTS = 134_515_008
DEPTHS = (8, 16, 32)  # blocks
STEPS = (("grad_diff", 0.05), ("npo", 0.05), ("grad_diff", 0.8), ("grad_diff", 1.0))
PUBLISHED_SECONDS = 148.0  # the published code: this model, 40 TOFU records, two cores


def total(found: Mapping[str, Any]) -> float:
    """Seconds from records to the written mask."""
    return float(found["gradients"] + found["selection"] + found["writing"])


def _memory(row: str, found: Mapping[str, Any], limit: float, why: str = "") -> list[Line]:
    return [
        at_most(row, "peak memory (VmHWM, with imports)", found["peak_gb"], "GB", limit, why),
        Line(row, "  of it without file pages (RssAnon)", found["anonymous_gb"], "GB"),
    ]


def _parts(row: str, found: Mapping[str, Any]) -> list[Line]:
    names = {"gradients": "gradients", "selection": "gamma, score, 10 ratios", "writing": "mask"}
    return [
        Line(row, f"  {what}", found[name], "s") for name, what in names.items() if name in found
    ]


def _rate(known: Known) -> float:
    """The best of the plain passes before and after: the machine drifts."""
    return max(float(known[name]["best"]) for name in ("bare", "bare_again"))


def bare(known: Known) -> list[Line]:
    """The plain backward pass."""
    before, after = known["bare"], known["bare_again"]
    lines = [
        Line(
            "bare", f"plain loss.backward(), batch {size}", max(rate, after["rates"][size]), "tok/s"
        )
        for size, rate in before["rates"].items()
    ]
    drift = abs(after["best"] / before["best"] - 1)
    return [
        Line("bare", "real tokens of both sets", before["real_tokens"], "tokens"),
        *lines,
        Line("bare", "best, after over before: drift of the machine", drift, "", "0"),
    ]


def whole(known: Known) -> list[Line]:
    """The engine ``whole`` compared with the plain backward pass."""
    found, real = known["whole"], known["bare"]["real_tokens"]
    plain = real / _rate(known)
    weights = found["weights"] / 1e9
    limit = 2 * weights + 8 * weights + 1.3
    lines = [
        at_most(
            "whole", "records to mask", total(found), "s", 1.10 * plain + 3, "1.10 x plain + 3 s"
        ),
        *_parts("whole", found),
        Line("whole", "gradients over the plain passes", found["gradients"] / plain, "ratio", "1"),
        *_memory("whole", found, limit, "weights + 8 B/weight + 1.3"),
    ]
    return [*lines, *_store_written(known)]


def published(known: Known) -> list[Line]:
    """The engine ``whole`` compared with the published code."""
    row, found, cost = "published", known["whole"], known["published"]
    both = cost["gradients"] + cost["masks"]
    lines = [
        Line(row, "cost on this machine, records to ten masks", both, "s"),
        Line(row, "  records padded to 512, one by one", cost["gradients"], "s"),
        Line(row, "  two full sorts and ten masks", cost["masks"], "s"),
        at_least(row, "  over whole", both / total(found), "x", 10),
        Line(row, "  peak memory over that of whole", cost["peak_gb"] / found["peak_gb"], "x"),
    ]
    if found["weights"] == DEMO_WEIGHTS:
        ratio = PUBLISHED_SECONDS / total(found)
        lines.append(at_least(row, "148 s, measured with it elsewhere, over whole", ratio, "x", 10))
    return lines


def _store_written(known: Known) -> list[Line]:
    disk, found = known["whole_disk"], known["whole"]
    alone = disk["store_bytes"] / 1e9 / disk["disk"]["write"]
    took = max(0.0, disk["gradients"] - found["gradients"])
    return [
        Line("whole", "writing the store: gradients with minus without it", took, "s"),
        Line("whole", "  a file of its size, written and synced", alone, "s"),
    ]


def stream(known: Known) -> list[Line]:
    """The engine ``stream`` compared with ``whole``."""
    disk, memory, base = known["stream"], known["stream_memory"], known["whole"]
    ratio = total(memory) / total(base)
    return [
        at_most("stream", "records to mask without writing, over whole", ratio, "ratio", 1.5),
        *_parts("stream", memory),
        Line("stream", "  gradients, over whole", memory["gradients"] / base["gradients"], "ratio"),
        Line("stream", "records to mask, store written", total(disk), "s"),
        Line("stream", "  written to disk", disk["moved"]["written"], "GB"),
        *_memory("stream", disk, 1.4),
    ]


def stream_equal(known: Known) -> list[Line]:
    """Both engines give the same numbers."""
    found = known["stream_equal"]
    what = f"worst relative difference ({found['parameter']})"
    return [at_most("stream_equal", what, found["worst"], "", 1e-5, "float32 rounding")]


def _seconds(row: str, what: str, found: Mapping[str, Any], limit: float) -> list[Line]:
    both = found["selection"] + found["writing"]
    return [
        at_most(row, what, both, "s", limit),
        Line(row, "  score, 10 ratios", found["selection"], "s"),
        Line(row, "  mask", found["writing"], "s"),
    ]


def selection(known: Known) -> list[Line]:
    """Ten ratios from a store in memory."""
    return _seconds("selection", "10 ratios from memory, gamma given", known["selection"], 3.0)


def selection_1b(known: Known) -> list[Line]:
    """Ten ratios from the store of the 1.1B model on disk."""
    found = known["select_1b"]
    auto = found["auto"]
    return [
        *_seconds("selection_1b", "10 ratios from disk, gamma given", found["given"], 30.0),
        Line("selection_1b", "with gamma auto", auto["selection"] + auto["writing"], "s"),
        Line("selection_1b", "peak memory (VmHWM, with imports)", found["peak_gb"], "GB"),
    ]


def stream_1b(known: Known) -> list[Line]:
    """The 1.1B model, block by block."""
    found, made = known["stream_1b"], known["make_1b"]
    return [
        Line("stream_1b", "gradients, store written", found["gradients"], "s"),
        *_moved("stream_1b", found),
        *_memory("stream_1b", found, 2.0),
        Line("stream_1b", "making the random folder", made["seconds"], "s"),
        Line("stream_1b", "  its peak memory", made["peak_gb"], "GB"),
    ]


def _moved(row: str, found: Mapping[str, Any]) -> list[Line]:
    names = {
        "read": "read from disk",
        "written": "written to disk",
        "asked_read": "read calls, page cache too",
        "asked_written": "write calls, page cache too",
    }
    return [Line(row, f"  {what}", found["moved"][name], "GB") for name, what in names.items()]


def stream_7b(known: Known) -> list[Line]:
    """The 7B shape: gradients and a ten-ratio mask, compared with the bare machine's time."""
    row, found, picked = "stream_7b", known["stream_7b"], known["select_7b"]
    rates, gone = found["rates"], found["moved"]
    arithmetic = found["flops"] / rates["matmul"]
    disk = gone["read"] / rates["disk"]["read"] + gone["written"] / rates["disk"]["write"]
    longest = max(arithmetic, disk)
    auto = picked["auto"]
    return [
        Line(row, "gradients, bfloat16 store written", found["gradients"], "s"),
        *_moved(row, found),
        Line(row, "  arithmetic (8 FLOP per block weight and token) alone", arithmetic, "s"),
        Line(row, "  at the measured matmul rate", rates["matmul"] / 1e9, "GFLOP/s"),
        Line(row, "  bytes at the measured disk rates alone", disk, "s"),
        Line(
            row, "gradients over the longer of the two", found["gradients"] / longest, "ratio", "1"
        ),
        Line(row, "gamma auto, score, 10 ratios", auto["selection"], "s"),
        Line(row, "  gamma given", picked["given"]["selection"], "s"),
        Line(row, "mask written", auto["writing"], "s"),
        *_memory(row, found, 4.0),
        *(
            line._replace(what=line.what.replace("peak memory", "peak of selection"))
            for line in _memory(row, picked, 4.0)
        ),
        Line(row, "making the random folder", known["make_7b"]["seconds"], "s"),
    ]


def depth(known: Known) -> list[Line]:
    """The peak memory of ``stream`` does not grow with the number of blocks."""
    peaks = {n: known[f"stream_depth_{n}"]["peak_gb"] for n in DEPTHS}
    apart = max(peaks.values()) / min(peaks.values()) - 1
    return [
        *(Line("depth", f"peak memory, {n} blocks", peak, "GB") for n, peak in peaks.items()),
        at_most("depth", "largest over smallest, less 1", apart, "", 0.10),
    ]


def rescore(known: Known) -> list[Line]:
    """Another gamma and ratio from the store on disk."""
    found = known["rescore"]["seconds"]
    return [at_most("rescore", "another gamma and ratio, fresh process", found, "s", 3.0)]


def mask_bytes(known: Known) -> list[Line]:
    """The size of a ten-ratio mask."""
    found = known["whole"]
    each = found["mask_bytes"] / found["weights"]
    return [at_most("mask_bytes", "a ten-ratio mask file", each, "B/weight", 0.51)]


def step(known: Known) -> list[Line]:
    """An unlearning step on the selected weights, compared with a plain Trainer's on all."""
    plain = [known[name]["step"] for name in ("step_plain", "step_plain_again")]
    best = min(plain)
    found = {f"{o} {r:g}": known[f"step_{o}_{r:g}"] for o, r in STEPS}
    lines = [
        Line("step", "plain Trainer, all weights (8 + 8 records, autocast)", best, "s"),
        Line("step", "  after over before: drift of the machine", plain[1] / plain[0] - 1, "", "0"),
    ]
    for name in ("grad_diff 0.05", "npo 0.05"):
        share = found[name]["step"] / best
        lines.append(at_most("step", f"{name} over the plain step", share, "ratio", 1.05))
    for name in ("grad_diff 0.8", "grad_diff 1"):
        share = found[name]["step"] / best
        lines.append(Line("step", f"{name} over the plain step", share, "ratio"))
    share = found["grad_diff 0.05"]["step"] / found["grad_diff 0.8"]["step"]
    peaks = [found[f"{name} 0.05"]["peak_gb"] for name in ("npo", "grad_diff")]
    return [
        *lines,
        at_most("step", "grad_diff: ratio 0.05 over 0.8", share, "ratio", 1.0),
        at_most(
            "step", "peak memory of npo over grad_diff, less 1", peaks[0] / peaks[1] - 1, "", 0.03
        ),
    ]


def held(known: Known) -> list[Line]:
    """What masked optimisation holds in addition to weights and activations."""
    limits = {0.05: 1.1, 0.8: 16.5}
    return [
        at_most(
            "held",
            f"all tensors except the model's, ratio {ratio:g}",
            known[f"step_grad_diff_{ratio:g}"]["held"],
            "B/weight",
            limit,
            "index, master, gradient, 2 moments",
        )
        for ratio, limit in limits.items()
    ]


def step_7b(known: Known) -> list[Line]:
    """Unlearning on the 7B shape on a machine without a GPU."""
    row, found = "step_7b", known["step_7b"]
    return [
        Line(row, "two steps, all checks and proofs", found["whole"], "s"),
        Line(row, "  one step of 2 + 2 records", found["step"], "s"),
        Line(row, "selected weights", found["selected"] / found["weights"], "share", "0.05"),
        Line(row, "  of them changed in bfloat16", found["changed"] / found["selected"], "share"),
        *_memory(row, found, 22.0),
    ]


class Row(NamedTuple):
    """A row: the measurements that it needs, and a function that turns them into lines.

    ``disk`` is how many bytes its files take per weight of the shape called ``size`` in Scale.
    """

    lines: Callable[[Known], list[Line]]
    needs: Sequence[str]
    disk: tuple[str, float] | None = None


_BASE = ("prepare", "bare", "whole", "bare_again")
_1B = ("large", 2 + 8 + 0.5)  # bfloat16 weights, two float32 gradients, levels
_7B = ("largest", 2 + 4 + 0.5)  # two bfloat16 gradients
ROWS: dict[str, Row] = {
    "bare": Row(bare, ("prepare", "bare", "bare_again")),
    "whole": Row(whole, (*_BASE, "whole_disk")),
    "published": Row(published, ("prepare", "whole", "published")),
    "stream": Row(stream, (*_BASE, "stream_memory", "stream")),
    "stream_equal": Row(stream_equal, ("stream_equal",)),
    "selection": Row(selection, ("prepare", "selection")),
    "rescore": Row(rescore, ("prepare", "stream", "rescore")),
    "mask_bytes": Row(mask_bytes, ("prepare", "whole")),
    "step": Row(step, ("step_plain", *(f"step_{o}_{r:g}" for o, r in STEPS), "step_plain_again")),
    "patches": Row(patches.lines, tuple(patches.MEASURES)),
    "held": Row(held, ("step_grad_diff_0.05", "step_grad_diff_0.8")),
    "depth": Row(depth, [f"{w}_depth_{n}" for n in DEPTHS for w in ("make", "stream")]),
    "stream_1b": Row(stream_1b, ("make_1b", "stream_1b"), _1B),
    "selection_1b": Row(selection_1b, ("make_1b", "stream_1b", "select_1b"), _1B),
    "stream_7b": Row(stream_7b, ("make_7b", "stream_7b", "select_7b"), _7B),
    "step_7b": Row(step_7b, ("make_7b", "step_7b"), ("largest", 2.2)),
}
