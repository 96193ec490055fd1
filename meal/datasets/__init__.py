"""Where images come from: a dataset is a reader and an entry in the registry."""
