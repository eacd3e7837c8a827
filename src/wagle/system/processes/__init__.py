"""The processes of a run, as torchrun starts them: what they share, and who leads."""
