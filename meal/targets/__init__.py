"""Teachers' outputs on disk: the soft targets that everything after the caches reads."""
