"""Commands that list and show: wagle itself, plug-ins, runs side by side."""
