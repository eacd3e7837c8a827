"""Masks: which weights may change."""
