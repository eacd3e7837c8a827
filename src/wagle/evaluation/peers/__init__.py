"""The result files and the names of other projects."""
