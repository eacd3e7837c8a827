"""Benchmarks: records -> requests, and answers -> figures; one file each."""
