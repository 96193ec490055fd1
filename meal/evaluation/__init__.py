"""Costs of finished networks."""
