"""Records from anywhere to token batches."""
