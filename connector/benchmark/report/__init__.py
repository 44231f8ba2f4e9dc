"""The report of a benchmark: compute figures from raw results, draw plots, write a page."""
