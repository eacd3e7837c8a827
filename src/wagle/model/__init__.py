"""A model: loading, structure, log-probabilities, weights on disk."""
