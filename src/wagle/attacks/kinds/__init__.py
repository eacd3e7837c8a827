"""The attacks, one file or folder each, with a function of the same name."""
