"""A search of an index: prune, shortlist, cut off, rank.

`FaissIndex` calls `choose_search.build_search`; Milvus uses `VectorisedSearch`; every index uses `tie_order`.

    choose_search.py      chooses the compiled or the vectorised search of a snapshot
    vectorised.py         `VectorisedSearch`: the steps for a batch with numpy, with any scanner
    shortlist.py          the nearest relevant records, by scans that go deeper until there are enough
    cutoff.py             Eq. 2: which candidates are relevant
    rank.py               the k best candidates, by exact distance or fused score
    beyond_cutoff.py      searches again where places are left, or there is no cutoff
    without_self.py       `WithoutSelf`: answers without the query's own record
    diversity.py          results that differ from one another, chosen among the best
    range_search.py       all records within a radius
    tie_order.py          the order of records at the same Hamming distance, the same in every index
    compiled.py           `CompiledSearch`: the same search by a numba kernel
    numba_arrays.py       the arguments of the kernel
    search_numba.py       the whole search, query by query, by the kernels of the next four modules
    prune_numba.py        prunes cells
    shortlist_numba.py    makes the shortlist, with the cutoff
    tie_order_numba.py    chooses among records at the same Hamming distance
    rank_numba.py         ranks the shortlist
    near_pairs.py         candidates for pairs of near records; `near_pairs_numba.py` is its kernel
    record_pairs.py       `RecordPairs`: which records are compared, and which candidates are pairs
    trace.py              `SearchTrace`: times and counts of the steps

Both searches give the same results, bit for bit. `kernels/__init__` has a table from each step to its kernel.
"""
