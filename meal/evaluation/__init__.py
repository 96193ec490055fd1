"""Costs and predictions of finished networks."""
