"""The records nearest by Hamming distance within given cells: one engine a file."""
