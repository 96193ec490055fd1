"""The stage `ensemble`: the chosen caches together, and their mean."""
