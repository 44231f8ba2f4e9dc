"""Relevance, cutoff, distance and fused score of a query and a record, and the rounding errors of their fast versions.

    equations.py          Eq. 1, 2 and 4, Euclidean and Hamming distance for numpy arrays: the values that count
    equations_kernel.py   Eq. 1 and 4 and the Euclidean distance for numba kernels, with bounds on their rounding
    rounding.py           fast float32 sums by FAISS, and how far they can be from the exact values

Every index takes the values in its results from `equations`. The other two modules decide most comparisons faster and
leave the rest to `equations`; a change to either must keep its error bounds true.
"""
