"""DVC experiments: run a grid of them, read them, compare them. Only this package imports DVC."""
