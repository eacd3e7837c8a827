"""Patches: the new values of changed weights, which need their base."""
