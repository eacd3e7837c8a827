"""Does a model know some records? Asked next to invented twins, and decided by paired tests."""
