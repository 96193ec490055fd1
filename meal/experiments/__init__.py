"""DVC's experiments: run a grid of them, read them, compare them. The one place that knows DVC."""
