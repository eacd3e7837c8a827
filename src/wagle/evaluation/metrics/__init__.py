"""Metrics: pure functions of answers, one file a family. A metric of no answers is absent, never 0."""
