"""The tables of the catalogue are exactly those of format version 4, which are those of version 3."""

from __future__ import annotations

import zlib

from semcut.indexes.storage.catalogue_format import APPLICATION_ID, FORMAT_VERSION
from tests.indexes.storage.stored_index import catalogue


def test_the_tables_are_those_of_the_format_version(path):
    """A deliberate change of the schema needs a new `FORMAT_VERSION`, and the new checksum here."""
    with catalogue(path) as db:
        statements = [text for (text,) in db.execute("SELECT sql FROM sqlite_master WHERE sql <> '' ORDER BY name")]
        (application,) = db.execute("PRAGMA application_id").fetchone()
        values = dict(db.execute("SELECT key, value FROM meta"))
    assert len(statements) == 4
    assert FORMAT_VERSION == 5
    assert zlib.crc32(" ".join(" ".join(statements).split()).encode()) == 2020126980
    assert application == APPLICATION_ID == int.from_bytes(b"SEMC", "big")
    assert sorted(values) == ["config", "format"]
    assert values["format"] == "5"
