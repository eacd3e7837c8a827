"""How gradients are computed: the engines, what they collect, and where they write it."""
