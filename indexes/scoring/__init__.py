"""Relevance, cutoff, distance and fused score of a query and a record, and the rounding errors of their fast versions.

    equations.py          Eq. 1, 2 and 4, Euclidean and Hamming distance for numpy arrays: these define the exact values
    equations_numba.py   Eq. 1 and 4 and the Euclidean distance for numba kernels, with bounds on their rounding
    rounding.py           fast float32 sums by FAISS, and bounds on their difference from the exact values

The values in every result are those of `equations`, bit for bit. The other two modules decide most comparisons faster,
and leave the rest to `equations`. After a change to one of them, its error bounds must still be true.
"""
