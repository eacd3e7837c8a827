"""Unlearning: objectives, the trainer that moves only the selected weights, and what stops it."""
