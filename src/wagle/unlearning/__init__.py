"""Unlearning: objectives, the trainer that moves selected weights only, and what stops it."""
