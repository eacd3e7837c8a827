"""What is checked of a run before it is believed: the seals of its files, the roles of its models."""
