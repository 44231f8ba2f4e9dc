"""What a benchmark searches."""
