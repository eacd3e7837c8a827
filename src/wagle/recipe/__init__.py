"""The recipe: one typed file that describes one run completely."""
