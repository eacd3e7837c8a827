"""The house, counted: rooms and floors, limits, and how many files adding one of a kind touches."""
