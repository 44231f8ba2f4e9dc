"""The tables of the catalogue are exactly those of the format version."""

from __future__ import annotations

import zlib

import pytest

from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.storage.catalogue_format import APPLICATION_ID, EXTENDED, FORMAT_VERSION
from tests.indexes.storage.stored_index import CONFIG, catalogue


@pytest.mark.parametrize(
    ("attributes", "number", "checksum"), [({}, 5, 2020126980), ({"price": "float"}, 6, 391939969)], ids=["5", "6"]
)
def test_the_tables_are_those_of_the_format_version(tmp_path, attributes, number, checksum):
    """A deliberate change of the schema needs a new `FORMAT_VERSION`, and the new checksum here."""
    path = tmp_path / "index"
    FaissIndex.create(path, IndexConfig(**{**CONFIG.model_dump(), "attributes": attributes})).close()
    with catalogue(path) as db:
        statements = [text for (text,) in db.execute("SELECT sql FROM sqlite_master WHERE sql <> '' ORDER BY name")]
        (application,) = db.execute("PRAGMA application_id").fetchone()
        values = dict(db.execute("SELECT key, value FROM meta"))
    assert len(statements) == 4
    assert (FORMAT_VERSION, EXTENDED) == (5, 6)
    assert zlib.crc32(" ".join(" ".join(statements).split()).encode()) == checksum
    assert application == APPLICATION_ID == int.from_bytes(b"SEMC", "big")
    assert sorted(values) == ["config", "format"]
    assert values["format"] == str(number)
