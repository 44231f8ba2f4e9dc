"""The run of a benchmark: building, timing and searching, with raw results as its outcome."""
