"""What is read off a model inside: the activations of a block, and control vectors made of them."""
