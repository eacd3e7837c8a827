"""Unlearning and teaching: objectives, the trainer, and the selected weights it may move."""
