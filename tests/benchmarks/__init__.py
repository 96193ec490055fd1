"""Benchmarks: `make bench`. Ratios of medians, both sides interleaved in one process."""
