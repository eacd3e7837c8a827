"""The trainer, and what it moves: the selected weights."""
