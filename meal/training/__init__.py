"""The training loop of teachers, baseline and student."""
