"""Tables for the terminal, and the same as JSON."""
