"""The schema of params.yaml, its slices, and their loading: `configure` starts at once.

A stage reads its slice alone, so that a parameter re-runs only the stages it concerns.
Nothing here imports torch or numpy.
"""
