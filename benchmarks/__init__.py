"""Benchmarks: each runs alone by ``python -m benchmarks.<name>``, prints ``name=value`` lines, leaves a report."""
