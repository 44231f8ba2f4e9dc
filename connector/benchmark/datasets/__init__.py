"""The data that a benchmark searches: made, stored and opened."""
