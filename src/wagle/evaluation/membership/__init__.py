"""Whether membership attacks tell the forget set from a holdout set."""
