"""How numba kernels are compiled, kept on the disk and loaded; and which kernel does which step of a search.

    jit.py            the decorators `kernel`, `compiled` and `compiled_sum`, and the private parts of numba behind them
    kernel_cache.py   the directory that keeps compiled kernels, and the process that fills it; imports no numba

Two modules in `scanners/` use them: `warmup.py` compiles or loads all kernels, by one tiny add, remove and search; and
`engine_switch.py` moves an open index to the compiled search as soon as the kernels are ready.

The kernels themselves stand beside the vectorised code that they repeat. Every file named `*_kernel.py` holds numba
kernels, and no other file does. A digest of all these files names the directory of the cache: a change to one of them,
or to a module in `kernel_cache._SOURCES`, compiles all kernels anew.

Each step of a search, as a kernel (compiled, query by query) and vectorised with numpy (for a whole batch):

    step                      kernel                                            vectorised
    large weights of a query  search/prune_kernel.large_weights                 pruning/class_lists.LargeWeights
    prune cells               search/prune_kernel.prune                         pruning/cells.Cells.prune
    scan codes                scanners/scan_kernel.take_sample, find_hits       scanners/*.search (one scanner a file)
    shortlist and cutoff      search/shortlist_kernel.take_nearest, take_all    search/vectorised.VectorisedSearch
    ties at one distance      search/ties_kernel.mixed, push, replace_top       search/tie_order.first
    re-rank                   search/rank_kernel.rank                           search/rank.rank
    Eq. 1, Eq. 4, distance    scoring/equations_kernel                          scoring/equations
    all steps in order        search/search_kernel.search                       search/vectorised.VectorisedSearch

The answers of both are the same, bit for bit. The values in a result are sums in float64, rounded to float32, and the
order of the terms of such a sum hardly ever shows in the rounded value. Kernels bound what the order can change; where
the rounded value could be another one, the query is left to the vectorised search, which calls `scoring/equations`.

Numba is the extra `fast`. Nothing imports `jit` or a `*_kernel` module where numba is missing. Compiling all kernels
takes up to half a minute.

Kernels take single arrays, numbers and small NamedTuples. Numba passes a NamedTuple by value, field by field, to every
function that is not inlined; in inner loops that once made a search four times slower.
"""
