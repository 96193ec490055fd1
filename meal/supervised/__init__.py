"""Networks trained on labels: teachers and the baseline, and teachers that come with weights."""
