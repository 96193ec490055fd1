"""The prepared images: their format on disk, and how their pixels are read."""
