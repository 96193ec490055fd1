"""The stage `prepare`: from a dataset's images to the prepared data and the data card."""
