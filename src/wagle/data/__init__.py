"""Records from anywhere, and the token batches made of them."""
