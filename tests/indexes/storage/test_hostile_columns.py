"""Column files from someone else: holes, and uris that share bytes, cost no more than what is stored."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, Encodings, FaissIndex, IndexConfig
from semcut.indexes.storage import snapshot, sparse_files, verify
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION, _state_crc
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.column_specs import Spec
from semcut.indexes.storage.sparse_files import require_stored
from semcut.indexes.storage.verify import verify_path
from tests.indexes.storage.stored_index import catalogue, contents, forge_column

ROW = Spec(np.dtype("u1"), (1 << 20,))


def holes(path: Path, rows: int, stored: int = 0) -> Column:
    """Create a column of rows of a MiB, of which only the first ones are stored."""
    column = Column(path, ROW, create=True)
    column.append(Extent(), np.ones((stored, 1 << 20), np.uint8))
    os.truncate(path, rows << 20)
    return column


@pytest.mark.parametrize(
    ("rows", "stored", "refused"),
    [(256, 0, False), (257, 0, True), (1 << 20, 0, True), (257, 4, True), (257, 5, False)],
)
def test_columns_that_are_nearly_all_holes_are_refused(tmp_path, rows, stored, refused):
    files = {"features": holes(tmp_path / "features", rows, stored), "codes": holes(tmp_path / "codes", 0)}
    extents = {"features": Extent(rows), "codes": Extent()}
    if refused:
        with pytest.raises(
            DamagedIndexError, match=rf"hold {stored << 20:,} of {rows << 20:,} bytes, the rest are holes"
        ):
            require_stored(files, extents)
    else:
        require_stored(files, extents)
    for file in files.values():
        file.close()


def test_one_column_of_holes_is_not_refused_if_the_others_are_stored(tmp_path):
    files = {"features": holes(tmp_path / "features", 500), "codes": holes(tmp_path / "codes", 8, 8)}
    require_stored(files, {"features": Extent(500), "codes": Extent(8)})
    for file in files.values():
        file.close()


def test_a_file_system_that_counts_few_blocks_is_asked_for_holes(tmp_path, monkeypatch):
    """As ZFS does, before it has allocated what was written, and where it compresses."""
    fstat = os.fstat
    monkeypatch.setattr(sparse_files, "_ANY_BYTES", 1 << 20)
    files, extents = {"features": holes(tmp_path / "features", 3, 3)}, {"features": Extent(3)}
    monkeypatch.setattr(os, "fstat", lambda handle: os.stat_result([*fstat(handle)[:10], *[0] * 9]))
    require_stored(files, extents)
    files["features"].close()


def zeros(path: Path, records: int, dim: int) -> None:
    """Create an index of records whose features are zeros."""
    config = IndexConfig(classes=2, bits=32, dim=dim)
    rng = np.random.default_rng(0)
    with FaissIndex.create(path, config) as index:
        index.add(
            Encodings(
                probabilities=rng.dirichlet(np.ones(2), records).astype(np.float32),
                codes=rng.integers(0, 256, (records, 4), np.uint8),
                features=np.zeros((records, dim), np.float32),
                ids=np.arange(records),
                uris=[f"{number}" for number in range(records)],
            )
        )


def test_an_index_of_holes_is_not_opened_verified_or_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(sparse_files, "_ANY_BYTES", 1 << 20)
    path = tmp_path / "index"
    zeros(path, 1000, 2048)
    shutil.copytree(path, tmp_path / "copy")
    assert verify_path(path) == []
    with FaissIndex.open(path) as reader:
        for file in (path / "generation-0" / "features", path / "generation-0" / "codes"):
            size = file.stat().st_size
            os.truncate(file, 0)
            os.truncate(file, size)
        with FaissIndex.open(tmp_path / "copy") as writer:
            writer.remove([0])
        shutil.copy(tmp_path / "copy" / "catalogue.sqlite", path / "catalogue.sqlite")
        shutil.copy(tmp_path / "copy" / "generation-0" / "removed", path / "generation-0" / "removed")
        with pytest.raises(DamagedIndexError, match="the rest are holes"):
            reader.refresh()
    files = contents(path)
    with pytest.raises(DamagedIndexError, match="the rest are holes"):
        FaissIndex.open(path)
    (damage,) = verify_path(path)
    assert "the rest are holes" in damage.what
    assert contents(path) == files


def test_verify_takes_no_more_memory_if_rows_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "COPY_BYTES", 1 << 20)
    zeros(tmp_path / "index", 1000, 4096)
    with FaissIndex.open(tmp_path / "index") as index:
        tracemalloc.start()
        try:
            assert index.verify() == []
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def forge_shared_uris(path: Path) -> None:
    """Make the uris of two records the same bytes, by ends that begin anew at a removed record between them."""
    zeros(path, 3, 4)
    text = np.frombuffer(b"a" * 99 + b"\0", np.uint8)
    forge_column(path, "uri_ends", np.array([100, 0, 100], "<i8"))
    forge_column(path, "uri_bytes", text)
    with catalogue(path) as db:
        (config,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        version, generation, records, _, removed, loose = db.execute(
            "SELECT version, generation, records, uri_bytes, removed, loose FROM state"
        ).fetchone()
        state = (version, generation, records, len(text), removed, loose)
        db.execute("UPDATE state SET uri_bytes = ?, crc = ?", (len(text), _state_crc(state, config, FORMAT_VERSION)))


def test_uris_that_share_bytes_are_not_multiplied_by_a_copy(tmp_path, monkeypatch):
    path = tmp_path / "index"
    forge_shared_uris(path)
    with FaissIndex.open(path) as index:
        first, second, third = index.snapshot.columns.ids.tolist()
        index.remove([second])
        assert index.uris([first]) == index.uris([third]) == ["a" * 99]
        with pytest.raises(DamagedIndexError, match="uri_ends of the index overlap"):
            list(index.iterate(1))
        monkeypatch.setattr(snapshot, "COPY_BYTES", 1)
        files = contents(path)
        with pytest.raises(DamagedIndexError, match="uri_ends of the index overlap"):
            index.compact()
        assert contents(path) == files
        (damage,) = index.verify()
        assert "uri_ends of the index overlap" in damage.what


def test_records_with_and_without_uris_are_copied(path, batch, monkeypatch):
    monkeypatch.setattr(snapshot, "COPY_BYTES", 1)
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
        index.remove(batch.ids[2:3])
        found = {int(i): uri for part in index.iterate(1) for i, uri in zip(part.ids, part.uris or [None], strict=True)}
        assert found == {int(i): uri for i, uri in zip(batch.ids, batch.uris, strict=True) if i != batch.ids[2]}
        index.compact()
        assert index.verify() == []
