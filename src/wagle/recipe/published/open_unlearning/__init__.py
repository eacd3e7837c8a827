"""OpenUnlearning's command lines and experiment files."""
