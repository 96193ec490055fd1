"""`python -m meal`."""

from meal.cli import app

app()
