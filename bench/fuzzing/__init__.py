"""The parts of ``bench.fuzz``: examples, mutations, what is opened, and the workers."""
