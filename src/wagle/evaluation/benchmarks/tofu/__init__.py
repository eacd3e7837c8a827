"""TOFU: its requests, figures and aggregates."""

from wagle.evaluation.benchmarks.tofu.task import tofu as tofu
