"""Exact pruning: skip the parts of an index that cannot hold a record relevant to a query.

    cell_table.py    which cell a record belongs to: a table of its largest probabilities, part of the stored format
    cells.py         `Cells`, their bounds, and `Cells.prune`, which finds the cells to scan
    class_lists.py   finds these cells faster if there are many: lists of cells by class, read down to a threshold
    outside_cells.py finds records that are not where the cells say
    explanation.py   `Explanation`: what pruning keeps for a query, partition by partition

Each snapshot of an index has a `Cells`, which every added batch extends. A search calls `prune` once per chunk of
queries. `search/prune_numba` repeats `Cells.prune` as a numba kernel, query by query.

A changed bound must still prove that a skipped cell has no relevant record; tests check this record by record
(tests/indexes/pruning/test_cells.py). `cell_table` must not change without a new format version.
"""
