"""`TUNING`: the numbers that make a search fast and cannot change its answer, defined only here.

The vectorised and the compiled implementation of a search both use these numbers. They are compiled into kernels, so
this file counts as a source of kernels (`kernels.kernel_cache`). The values were measured on 2 cores of an AMD EPYC. A
bad value makes searches slower, and never loses a record.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Numbers for the depth of scans, the split of batches over threads, and the memory of a search.

    Attributes:
        first_scan: depth of the first scan of a vectorised search, as a multiple of the shortlist. Records at the last
            Hamming distance of a scan may be missing; this depth mostly puts that distance beyond the shortlist.
        first_radius: number of records expected within the first radius of a compiled search or scan, as a multiple of
            the shortlist. A kernel finds all records of a distance, so it needs fewer than a vectorised search.
        wider: factor on the expected number of records if a scan by the compiled scanner alone finds too few codes.
        checked_first: number of the nearest records that are compared with the cutoff first, as a multiple of the
            shortlist. The other records are compared only if too few of these are relevant.
        deeper: factor on the depth of a scan, or on the expected number of records in a kernel, if too few of
            the records found are relevant.
        rather_all: if a deeper scan would return at least one in `rather_all` records of the kept cells, all records of
            these cells are scored instead.
        split_vectorised: smallest batch that a vectorised search splits over threads. For smaller batches, starting the
            threads takes longer than they save.
        split_compiled: smallest batch that a compiled search sorts by class and splits over threads.
        split_scan: smallest batch that a scan by the compiled scanner alone splits over threads.
        scanned_alone: largest number of codes that one query scans in one thread, if it has a shortlist.
        ranked_alone: the same for a query that ranks all relevant records.
        joined_slots: largest number of slots that the shortlists of all threads of one query have together.
        most_compiled: largest k of a compiled search. For a larger k, sorting whole arrays is faster.
        wide: smallest number of classes for which the cutoff first reads only a record's probabilities of the classes
            with large weights.
        chunk_elements: limit on the number of queries in a chunk times the number of cells, classes, shortlist slots or
            results, whichever is largest, and on queries times depth in a scan: 32 MB of float64.
        rows_at_once: rows scored per chunk when every record of a cell is scored.
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
    scanned_alone: int = 1 << 21
    ranked_alone: int = 1 << 18
    joined_slots: int = 1 << 16
    most_compiled: int = 1024
    wide: int = 256
    chunk_elements: int = 1 << 22
    rows_at_once: int = 1 << 20


TUNING = Tuning()
