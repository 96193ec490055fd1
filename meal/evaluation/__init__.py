"""The stage `evaluate`: every model on the test images, and what their differences mean."""
