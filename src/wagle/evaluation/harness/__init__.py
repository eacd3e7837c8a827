"""Benchmarks that run through lm-eval."""
