"""Replayable augmentation: from prepared images to batches of views."""
