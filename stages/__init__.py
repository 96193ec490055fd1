"""One script per DVC stage: read the slice, call `meal`, write the outputs."""
