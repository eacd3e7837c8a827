"""Evaluation: requests -> batched answers of the model -> pure metric functions."""
