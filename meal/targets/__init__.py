"""Teachers' outputs on disk, which all stages after `cache` read."""
