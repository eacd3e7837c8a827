"""Configs of the published WAGLE code and of SOUL, its predecessor: JSON and dotted overrides."""
