"""Benchmarks (`make bench`): ratios of medians, with both sides interleaved in one process."""
