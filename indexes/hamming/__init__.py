"""Shortlist engines: the records nearest in Hamming distance within given cells, one engine per file.

An engine knows codes, row numbers and cells, and nothing of relevance, ids or features. The seam is three methods:

    add(codes, rows, cells)             (n, bits / 8) uint8, (n,) int64, (n,) integers
    remove(rows, cells)                 as for add; they must be there
    search(codes, cells, depth)         (nq, bits / 8) uint8, (nq, w) int64 padded with -1, to
                                        rows (nq, depth) int64 padded with -1, nearest first

A cell that is searched must have been added to: FAISS does not survive a list number that it does not know. Searches
may run at the same time as each other; an add or a removal may not run beside anything.
"""
