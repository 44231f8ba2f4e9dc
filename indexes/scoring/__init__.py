"""The equations of the paper, and how far float32 sums can be from them."""
