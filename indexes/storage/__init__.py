"""Records on the disk, and what survives a crash. Room of the indexes; `faiss_index` and the benchmark use it.

Modules, in reading order:

    store            `Store`, the way in: create or open an index, change it, close it
    transactions     what is on the disk, how a change is committed, and what each crash leaves
    compaction       write the records that were not removed to new files
    backup           write a copy of an index to another directory
    verify           find all damage, and the records that it concerns
    loaded_index     load an index from the disk, and refresh it after another process has changed it
    snapshot         `Snapshot`, an index after one change, immutable
    mapped_columns   `Columns`, the memory-mapped arrays of a snapshot
    column_files     the format of column files: append, checksums, mapping
    memory_column    the same methods for an index in memory
    catalogue        the SQLite catalogue: open, read, commit
    catalogue_format its tables, their checksums, and the format version
    directory        the layout of the directory of an index; create or complete one
    writer_lock      one writing process per index
    atomic_write     replace a file in one step, safe against power failure; for every part of semcut
    shared_lock      many reading threads or one writing thread
    id_map           from ids to row numbers

Other rooms use `Store`, `Snapshot`, `Columns`, `verify`, `IdMap`, `SharedLock`, `specs`, `FORMAT_VERSION` and
`atomic_write`, no other part. A change of the files on the disk needs a new `FORMAT_VERSION`. Every write goes through
`transactions`, `compaction` or `directory`: `tests/indexes/storage/faults.py` makes each of their calls to the disk
fail or be the last.
"""
