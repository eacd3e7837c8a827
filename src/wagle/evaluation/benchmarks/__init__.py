"""The benchmarks of the field: records to requests, answers to figures."""
