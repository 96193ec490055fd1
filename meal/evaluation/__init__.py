"""What models are worth, what they cost, and whether a difference is more than noise."""
