"""Configs of other projects, ready to run here."""
