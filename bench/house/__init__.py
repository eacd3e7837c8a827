"""The house, counted: its rooms and floors, its limits, and how many files one more of a kind touches."""
