"""The data sets of a benchmark: copy or generate, store and open them."""
