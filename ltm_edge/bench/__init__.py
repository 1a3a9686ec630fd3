"""Benchmarks: our engine and others on the same input, in one run. A table states what was measured and how often."""
