"""The run of a benchmark: build and search all structures, time the searches, and write raw results."""
