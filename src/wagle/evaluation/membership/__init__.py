"""Whether membership attacks can tell the forget set from a holdout set."""
