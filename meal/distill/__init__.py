"""The stage `distill`: the student learns from the teachers (MEAL, AAAI 2019)."""
