"""Files, memory and the terminal."""
