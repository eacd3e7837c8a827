"""The weights that train: their master copy, and what is done with their gradients."""
