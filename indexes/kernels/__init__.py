"""A search in machine code: what `pipeline` does step by step for many queries, done query by query without a detour.

    jit.py          how functions are compiled, and the processor instructions that numba has no name for
    scan.py         Hamming distances of contiguous codes, and the nearest of them by counting
    lists.py        the codes of an index: adding, moving, removing them, and searching given cells
    bounds.py       the cells that can hold a relevant record
    arrays.py       what a search is given and gives
    ties.py         which of the records at one Hamming distance come first, as `indexes.ties` says
    shortlist.py    the first relevant records of a scan
    rerank.py       the k best of a query's candidates
    fused.py        the whole search of one query after the other
    search.py       the same from Python: threads, and which queries `pipeline` has to answer after all

Needs numba (extra `fast`); nothing imports this package where it is missing. Compiling takes up to half a minute, and
the result is kept on the disk: `kernel_cache` knows where, and whether it is ready; `engine_switch` has it done beside
searches, `warmup` at once.

Answers are those of `pipeline`, bit for bit. The exact values of `relevance` are sums in float64, rounded to float32,
and the order of such a sum hardly ever shows in the result. Kernels bound what it can change; where the rounded value
could be another, the query is left to `pipeline`, which calls `relevance` itself.
"""
