"""Metrics: pure functions of answers, and the statistics of figures."""
