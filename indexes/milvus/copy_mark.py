"""Mark an index on a server while it is filled, so that no interrupted copy leaves an index that looks whole.

This is for a server what `indexes.unfinished` is for a directory: a row of the kind UNFINISHED is on the server before
the first record, and is deleted after the last one. Its `text` is the JSON of the number of records that the index will
have. Its key is fixed, so there is one such row at most; only one client fills an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from semcut.indexes.milvus.connection import ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import text_column
from semcut.indexes.milvus.schema import Schema
from semcut.indexes.milvus.shared_rows import UNFINISHED, shared_collection_name, shared_row
from semcut.indexes.unfinished import sentence

_KEY = -1


def mark(server: ServerConnection, schema: Schema, records: int) -> None:
    """Record that the index is being filled, and will have this number of records."""
    row = shared_row(schema.config.classes, cell=UNFINISHED, key=_KEY, text=json.dumps(records))
    server.call("upsert", shared_collection_name(schema.name), [row])


def unmark(server: ServerConnection, schema: Schema) -> None:
    """Record that the index has all records."""
    server.delete(shared_collection_name(schema.name), is_in("key", [_KEY]))


def missing_records(server: ServerConnection, schema: Schema, count: Callable[[], int]) -> str | None:
    """Return a sentence that says how many records are missing from the index, None if none are known to be missing.

    Args:
        server, schema: the connection and the schema of the index.
        count: counts the records of the index; called only if the index is marked.
    """
    rows = server.read(
        "query", shared_collection_name(schema.name), filter=f"cell in [{UNFINISHED}]", output_fields=["text"],
        limit=1, strong=True,
    )  # fmt: skip
    found = text_column(rows, "text")
    if not found:
        return None
    try:
        expected = json.loads(found[0])
    except ValueError:
        expected = 0
    return sentence(f"collection {schema.name}", count(), expected if type(expected) is int else 0)
