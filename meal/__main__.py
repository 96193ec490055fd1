"""`python -m meal`."""

from meal.cli import run

run()
