"""The report of a benchmark: figures from raw results, plots, and a page."""
