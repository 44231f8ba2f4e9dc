"""A search: prune, shortlist, cut off, re-rank."""
