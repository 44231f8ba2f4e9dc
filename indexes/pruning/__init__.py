"""Exact pruning: skip the parts of an index that cannot hold a record relevant to a query.

    cell_table.py    which cell a record belongs to: a table of its largest probabilities, part of the stored format
    cells.py         `Cells`, their bounds, and `Cells.prune`, which finds the cells to scan
    class_lists.py   the same for many cells: lists of cells by class, read down to a threshold
    explanation.py   what pruning does for a query, partition by partition, for people who want to see it

An index keeps one `Cells` per snapshot, extends it with every batch, and calls `prune` once per batch of queries.
`search/prune_kernel` repeats `Cells.prune` as a numba kernel, query by query.

A bound may be changed as long as it proves that a skipped cell holds no relevant record; tests compare it record by
record (tests/indexes/pruning/test_cells.py). `cell_table` must not change without a new format version.
"""
