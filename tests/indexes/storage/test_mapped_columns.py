"""Rows of an index are compared with their checksums before use, whether they are mapped or read from the file."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, Encodings
from semcut.indexes.storage.column_specs import specs
from semcut.indexes.storage.store import Store
from tests.indexes.story import CONFIG, records

BLOCK = specs(CONFIG)["uri_bytes"].block


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1])
def test_every_block_of_a_long_uri_is_compared(tmp_path, blocks, offset):
    """The uri starts at `offset` and ends in block number `blocks` - 1; each of its blocks is damaged in turn."""
    one = records(np.array([1, 1]), np.zeros(2))  # of one cell, so that the rows are in this order
    uris = ["y" * (offset - 1) if offset else None, "x" * (blocks * BLOCK - offset - 1)]
    if offset == 1:
        uris[0] = ""  # only the zero byte
    batch = Encodings(
        probabilities=one.probabilities,
        codes=one.codes,
        features=one.features,
        ids=np.array([1, 2]),
        uris=uris,
        attributes=one.attributes,
        any_mass=True,
    )
    store = Store.create(tmp_path / "index", CONFIG)
    store.write(batch)
    store.close()
    file = tmp_path / "index" / "generation-0" / "uri_bytes"
    data = file.read_bytes()
    assert len(data) == blocks * BLOCK
    for block in range(blocks):
        damaged = bytearray(data)
        damaged[(block + 1) * BLOCK - 2 if block == 0 else block * BLOCK + 9] ^= 1  # still a letter, and valid UTF-8
        file.write_bytes(damaged)
        store = Store.open(tmp_path / "index")
        with pytest.raises(DamagedIndexError, match=rf"uri_bytes is damaged: rows {block * BLOCK} to"):
            store.snapshot.columns.uris(np.array([1]))
        store.close()
    file.write_bytes(data)
    store = Store.open(tmp_path / "index")
    assert store.snapshot.columns.uris(np.array([1, 0])) == uris[::-1]
    store.close()


@pytest.mark.parametrize("mapped", [True, False])
def test_rows_are_the_same_mapped_or_read_from_the_file(tmp_path, monkeypatch, mapped):
    batch = records(np.arange(300), np.zeros(300))
    store = Store.create(tmp_path / "index", CONFIG)
    store.write(batch)
    if not mapped:
        monkeypatch.setattr("semcut.indexes.storage.mapped_columns._MAPPED_BYTES", 0)
    with_limit = Store.open(tmp_path / "index")
    rows = np.array([[7, -1, 299], [-1, 0, 7]])
    ids = with_limit.snapshot.columns.ids
    for name in ("probabilities", "features"):
        values, places = getattr(with_limit.snapshot.columns, name)(rows)
        assert places.shape == rows.shape
        np.testing.assert_array_equal(places < 0, rows < 0)
        np.testing.assert_array_equal(values[places[rows >= 0]], getattr(batch, name)[ids[rows[rows >= 0]]])
    with_limit.close()
    store.close()
