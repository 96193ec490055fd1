"""`python -m meal`."""

from meal.cli.main import run

run()
