"""Models with rounded weights: what an attack measures, and what many servers load."""
