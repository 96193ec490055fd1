"""Long runs that kill, damage and crowd the pipeline: `make soak`."""
