"""How gradients are made: the engines, what they collect, where it is written."""
