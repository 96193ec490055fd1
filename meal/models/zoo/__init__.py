"""Networks for small images, one family a module."""
