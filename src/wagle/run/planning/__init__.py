"""What a run will need: memory, disk and time, from shapes and counts alone."""
