"""The stage `evaluate`: scores of every model on the test images, and their significance."""
