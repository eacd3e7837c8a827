"""Configs of other projects: the published WAGLE code, SOUL and OpenUnlearning, as recipes."""
