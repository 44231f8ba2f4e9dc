"""`TUNING`: the numbers that make a search fast and cannot change its answer, in the one place where they stand.

Both implementations of a search take them from here, the vectorised one and the compiled one. Kernels read them when
they are compiled, so this file counts as a source of kernels (`kernels.kernel_cache`). The values were found by
measuring on 2 cores of an AMD EPYC; a wrong one costs time, never a record.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How deep searches scan, how they share work, and how much memory they take.

    Attributes:
        first_scan: the first scan of a vectorised search gives this times the size of the shortlist: enough that its
            last Hamming distance, at which records may be missing, mostly lies behind the shortlist.
        first_radius: a kernel first takes the records within a radius that holds about this times the size of the
            shortlist; it sees whole distances, so it needs fewer than a vectorised search.
        wider: a scan by the compiled scanner alone that finds too few codes is repeated for this many times as many.
        checked_first: this times the size of the shortlist is compared with the cutoff first; the rest only if too few
            of them are relevant.
        deeper: a scan that finds too few relevant records is repeated this many times as deep.
        rather_all: if a deeper scan would give one record for every `rather_all` records of the kept cells, or more,
            every record of these cells is looked at instead.
        split_vectorised: smallest batch that a vectorised search splits over threads. Below, starting them costs more.
        split_compiled: the same of a compiled search, which is split by queries that find the same records.
        split_scan: the same of a scan by the compiled scanner alone.
        most_compiled: largest k of a compiled search; above it, sorting whole arrays is faster.
        wide: number of classes from which on only some of a record's probabilities are read to compare it with the
            cutoff.
        chunk_elements: elements of the largest array that one chunk of queries makes: 32 MB of float64.
        rows_at_once: rows that are scored at once where every record of a cell is looked at.
    """

    first_scan: int = 3
    first_radius: float = 1.5
    wider: int = 2
    checked_first: float = 1.5
    deeper: int = 4
    rather_all: int = 4
    split_vectorised: int = 64
    split_compiled: int = 16
    split_scan: int = 64
    most_compiled: int = 1024
    wide: int = 256
    chunk_elements: int = 1 << 22
    rows_at_once: int = 1 << 20


TUNING = Tuning()
