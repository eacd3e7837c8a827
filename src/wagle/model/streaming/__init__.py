"""Streaming: live models whose blocks stay on disk, one of them in memory at a time."""
