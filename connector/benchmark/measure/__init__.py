"""Running and timing a benchmark."""
