"""Evidence: a claim about a run that a stranger can check, and the deletion of its records."""
