"""Evaluation: what is asked of a model, what the answers say, and the verdict."""
