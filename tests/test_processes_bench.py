"""The benches of several processes and of a GPU: what they make of what they measured."""

import math

from bench import gpu, processes


def test_the_page_of_processes_says_what_was_measured_and_nothing_else():
    runs = {n: {"seconds": s, "verdict": "fine", "figures": {}} for n, s in (("1", 100), ("2", 60))}
    apart = {
        "after.forget.probability": 2e-4,
        "after.forget.nll": 0.01,
        "before.a.probability": 1e-7,
    }
    record = {"demo": {"runs": runs, "differences": apart}}
    shown = processes.page(record)
    assert "| 2 | 60 | fine |" in shown
    assert "Two processes take 0.60 of the time of one." in shown
    assert "| after | 2.0e-04 | 1.0e-02 (`after.forget.nll`) |" in shown
    assert "| before | 1.0e-07 | 1.0e-07 (`before.a.probability`) |" in shown
    assert "MB" not in shown
    assert "micro-batches" not in shown
    record["dealt"] = {"runs": runs, "differences": {"after.forget.probability": 5e-4}}
    shown = processes.page(record)
    assert "The verdicts are equal (fine)" in shown
    assert "| after | 5.0e-04 | 5.0e-04 (`after.forget.probability`) |" in shown
    record["bytes"] = {"0.05": 27e6, "1": 540e6, "all_weights": 540e6, "share": 0.05}
    work = {
        "unlearning": {
            "1": {"peaks": [{"peak_gb": 8.0}]},
            "2": {"peaks": [{"peak_gb": 4.0}, {"peak_gb": 4.4}]},
        }
    }
    record["memory"] = {"some": {"weights": 1.1e9, "work": work}}
    shown = processes.page(record)
    assert "27.0 MB" in shown
    assert "The share is 0.050." in shown
    assert "| 1.1 billion | unlearning | 8.00 | 4.40 | 0.550 |" in shown


def test_a_gpu_is_compared_by_the_largest_relative_difference():
    one, other = {"a": 1.0, "b": 0.0}, {"a": 1.01, "b": 0.0}
    apart, where = gpu.difference(one, other)
    assert (round(apart, 4), where) == (0.0099, "a")
    assert gpu.difference(one, {"a": 1.0})[0] == math.inf
    rows = {
        "whole": {"figures": 2, "difference": apart, "in": "a", "tolerance": 1e-3, "within": False}
        | {"seconds": [1.0, 2.0]},
        "eight_bits": {"skipped": "needs bitsandbytes"},
    }
    shown = gpu.table({"card": "none", "torch": "2", "parts": rows})
    assert "| whole | 2 | 9.9e-03 (a) | 0.001 | NO | 1, 2 |" in shown
    assert "| eight_bits | | needs bitsandbytes | | | |" in shown
