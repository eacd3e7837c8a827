"""TOFU: its requests, figures and aggregates."""
