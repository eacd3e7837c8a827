"""Deleting the records of a run: what goes, what stays, and the search for what is left."""
