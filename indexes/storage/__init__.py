"""Records on the disk: column files, the catalogue, and what survives a crash."""
