"""Keep one text beside an index on a server, for a caller that has to know more of the index than its records.

The connector keeps there which network made the records. The text is one row of the kind NOTE in the shared collection,
with a fixed key, so writing it again replaces it as a whole. Anyone who can write to the server may have written it.
"""

from __future__ import annotations

from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.milvus.milvus_index import MilvusIndex
from semcut.indexes.milvus.pymilvus_internals import text_column
from semcut.indexes.milvus.shared_rows import NOTE, shared_collection_name, shared_row

LARGEST_NOTE = 65_535
"""The largest number of bytes of a text."""
_KEY = -2


def write_note(index: MilvusIndex, text: str) -> None:
    """Store a text beside an index, in place of the one that is there.

    Raises:
        InvalidParameterError: the text is too long for one row.
        ServerError: the server does not answer, or refuses.
    """
    size = len(text.encode())
    if size > LARGEST_NOTE:
        raise InvalidParameterError(f"the text has {size:,} bytes, expected at most {LARGEST_NOTE:,}")
    row = shared_row(index.config.classes, cell=NOTE, key=_KEY, text=text)
    index._server.call("upsert", shared_collection_name(index._schema.name), [row])


def read_note(index: MilvusIndex) -> str | None:
    """Read the text beside an index in the newest state; None if there is none."""
    rows = index._server.read(
        "query", shared_collection_name(index._schema.name), filter=f"cell in [{NOTE}]", output_fields=["text"],
        limit=1, strong=True,
    )  # fmt: skip
    found = text_column(rows, "text")
    return found[0] if found else None
