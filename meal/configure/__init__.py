"""The stage `configure`: params.yaml checked as a whole and cut into slices."""
