"""Evaluation: what a model is asked, what its answers show, and the verdict."""
