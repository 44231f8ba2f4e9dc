"""Figures, pictures and the page of a benchmark."""
