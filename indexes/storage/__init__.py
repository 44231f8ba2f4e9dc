"""Store the records of an index: on the disk, where they survive a crash, or in memory. `FaissIndex` uses this package.

Modules, in reading order:

    store                `Store`, the entry point: create or open an index, change it, close it
    transactions         what is on the disk, how a change is committed, and what each crash leaves
    compaction           write the records that were not removed to new files
    backup               write a copy of an index to another directory
    restore              replace an index by a backup in one step
    marked_scratch       directories in which an index is built that replaces another, and which semcut may delete
    rebuilding           replace an index by one that is built beside it, such as one with more classes
    directory_exchange   exchange two directories in one step, for both
    verify               find all damage, and the ids of the records that are damaged
    loaded_index         load an index from the disk, and refresh it after another process has changed it
    snapshot             `Snapshot`, an index after one change, immutable
    mapped_columns       `Columns`, the memory-mapped arrays of a snapshot
    stored_rows          records in the form in which they are stored: made, read, and sorted by cell
    column_files         the format of column files: append, checksums, mapping
    memory_column        one column of an index in memory, in place of a column file
    catalogue            the SQLite catalogue: open, read, commit
    catalogue_connection its SQLite connection: read-only until it has to write, errors translated
    catalogue_guard      what is judged before SQLite opens a catalogue, which may come from someone else
    catalogue_format     the tables of the catalogue, their checksums, and the format version
    directory            the layout of the directory of an index; create or complete one
    writer_lock          one writing process per index
    atomic_write         replace a file in one step, safe against power failure; all parts of semcut use it
    shared_lock          many reading threads or one writing thread
    id_map               from ids to row numbers

Other packages use `Store`, `Durability`, `Snapshot`, `Columns`, `verify`, `restore`, `rebuilding`, `IdMap`,
`SharedLock`, `specs`, `FORMAT_VERSION` and `atomic_write`, and no other part. A change of the files on the disk needs
a new `FORMAT_VERSION`.
Every write of records goes through `transactions`, `compaction`, `backup`, `rebuilding` or `directory`. The tests
(`tests/indexes/storage/faults.py`) make each of their calls to the disk fail, or end the process there.
"""
