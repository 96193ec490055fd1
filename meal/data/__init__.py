"""From image files to replayable batches."""
