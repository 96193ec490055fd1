"""Networks, and their view as aligned blocks and logits."""
