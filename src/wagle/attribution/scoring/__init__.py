"""From gradients to masks: scores, their settings, exact selection."""
