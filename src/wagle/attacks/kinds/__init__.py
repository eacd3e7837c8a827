"""Every attack, a file or a folder each, with a function of its name."""
