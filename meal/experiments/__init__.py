"""DVC's experiments: run a grid of them, read them, compare them. The only importer of DVC."""
