"""Compiling numba kernels, storing them on the disk and loading them; and which kernel does which step of a search.

    jit.py            the decorators `kernel`, `compiled` and `compiled_sum`, and the private parts of numba behind them
    kernel_cache.py   the directory of compiled kernels, and the process that fills it; works without numba

Two modules of `indexes` use them: `warmup.py` compiles or loads all kernels, by one small add, remove, search and
comparison; and `engine_switch.py` moves an open index to the compiled search as soon as the kernels are ready.

The kernels are in the same directory as the vectorised code that does the same, in files named `*_numba.py`, which
contain all numba kernels. A digest of all these files names the directory of the cache: a change to one of them, or to
a module in `kernel_cache._SOURCES`, means that all kernels are compiled again.

Each step of a search, as a kernel (compiled, query by query) and vectorised with numpy (for a whole batch):

    step                      kernel                                            vectorised
    large weights of a query  search/prune_numba.large_weights                 pruning/class_lists.LargeWeights
    prune cells               search/prune_numba.prune                         pruning/cells.Cells.prune
    scan codes                scanners/scan_numba.take_sample, find_hits       scanners/hamming_*.py: `search`
    keep and scan all cells   search/every_numba                                the same as for some cells
    shortlist                 search/shortlist_numba.take_nearest, take_all    search/shortlist.Shortlister
    cutoff                    search/shortlist_numba._is_relevant              search/cutoff.relevant_candidates
    ties at one distance      search/tie_order_numba.mixed, push, replace_top       search/tie_order.first
    rank                      search/rank_numba.rank                           search/rank.rank
    Eq. 1, Eq. 4, distance    scoring/equations_numba                          scoring/equations
    pairs of near records     search/near_pairs_numba.find_candidates           search/near_pairs.near_pairs
    all steps in order        search/search_numba.search                       search/vectorised.VectorisedSearch
    one query, many threads   search/in_parts, with `search_numba.search`        none

Both give the same answers, bit for bit. The values in a result are sums in float64, rounded to float32, and the order
of the terms of such a sum hardly ever changes the rounded value. Kernels bound the effect of the order. If the order
could change a rounded value, the query is left to the vectorised search, which calls `scoring/equations`.

Numba is installed by the extra `fast`. Without numba, no module imports `jit` or a `*_numba` module. Compiling all
kernels takes up to half a minute.

Arguments of functions in inner loops are arrays, numbers and small NamedTuples: numba passes a NamedTuple by value,
field by field, to every function that is not inlined. A search was four times slower with large ones.
"""
