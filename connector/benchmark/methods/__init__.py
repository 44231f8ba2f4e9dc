"""The indexes that a benchmark compares, and the parameters that each is searched with."""
