"""Cells and removed rows are read once: whatever another program writes to their files, no scanner sees it."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FaissIndex
from semcut.indexes.pruning.cell_table import cell_count
from semcut.indexes.storage.catalogue_format import _cell_crc
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.column_specs import Spec
from semcut.indexes.storage.kept_column import KeptColumn
from semcut.indexes.storage.mapped_columns import Columns
from semcut.indexes.storage.store import Store
from tests.indexes.generate import assert_same
from tests.indexes.storage.cutting import CONFIG, batch
from tests.indexes.storage.stored_index import catalogue, column, python

ROWS = 2000
ENGINES = pytest.mark.parametrize("engine", ["compiled", "faiss"])
ROW = Spec(np.dtype("<i4"), (), 4)

USE = f"""
from tests.indexes.storage.cutting import CONFIG, batch
ROWS = {ROWS}
path, engine, value = sys.argv[1:]

def write_cells(number):  # not in the last block, which a refresh compares
    with open(f"{{path}}/generation-0/cells", "r+b") as file:
        file.write(np.full(ROWS // 128 * 128, number, np.int32).tobytes())

def has_all_but(index, removed):
    left = np.setdiff1d(np.arange(ROWS), removed)
    with FaissIndex.create(None, CONFIG, engine=engine) as reference:
        reference.add(batch(ROWS)[left])
        for shortlist in (10, 300, None):
            options = dict(k=10, cutoff=0.0, shortlist=shortlist)
            found, right = (each.search(batch(ROWS)[:40], **options) for each in (index, reference))
            assert np.array_equal(found.ids, right.ids)
            assert np.array_equal(found.codes, right.codes)
    sizes = index.snapshot.cells.sizes
    assert sizes.sum() == len(left)
    if engine == "compiled":
        lists = index._searchable.scanner.lists.sizes
        assert np.array_equal(lists, sizes[: len(lists)])
        assert not sizes[len(lists) :].any()
"""


@pytest.fixture
def stored(tmp_path) -> Path:
    """A stored index of `ROWS` records, closed."""
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="faiss") as index:
        index.add(batch(ROWS))
    return tmp_path / "index"


def add_cells(path: Path) -> int:
    """Store all cells that there can be, also those without records; return their number."""
    envelope = np.ones(CONFIG.classes, "<f4").tobytes()
    with catalogue(path) as db:
        known = [number for (number,) in db.execute("SELECT number FROM cells")]
        free = sorted(set(range(cell_count(CONFIG))) - set(known))
        for at, number in enumerate(free, len(known)):
            row = (at, number, 0.0, envelope)
            db.execute("INSERT INTO cells VALUES (?, ?, ?, ?, ?)", (*row, _cell_crc(*row)))
    return len(known) + len(free)


def survives(script: str, *arguments: object) -> None:
    done = python(USE + textwrap.dedent(script), *arguments)
    assert done.returncode != -signal.SIGSEGV
    assert done.returncode == 0, done.stderr


REMOVE = """
with FaissIndex.open(path, engine=engine) as index:
    index.search(batch(ROWS)[:2])
    write_cells(int(value))
    removed = np.arange(0, ROWS, 2)
    index.remove(removed[:500])
    has_all_but(index, removed[:500])
    index.remove(removed[500:])
    has_all_but(index, removed)
    assert any("cells" in damage.where for damage in index.verify())
    index.compact()
    has_all_but(index, removed)
    assert index.verify() == []
"""


@ENGINES
@pytest.mark.parametrize("value", [0, 3])
def test_a_writer_removes_records_from_the_cells_that_they_were_added_to(stored, engine, value):
    survives(REMOVE, stored, engine, value)


@ENGINES
def test_a_cell_without_records_that_the_file_names_later_is_not_used(stored, engine):
    survives(REMOVE, stored, engine, add_cells(stored) - 1)


@ENGINES
@pytest.mark.parametrize("value", [-1, 10_000, 2**31 - 1])
def test_a_cell_that_does_not_exist_is_not_used(stored, engine, value):
    survives(REMOVE, stored, engine, value)


@ENGINES
@pytest.mark.parametrize("value", [0, 3])
def test_a_reader_removes_records_from_the_cells_that_they_were_added_to(stored, engine, value):
    survives(
        """
        with FaissIndex.open(path, engine=engine) as reader, FaissIndex.open(path, engine="faiss") as writer:
            reader.search(batch(ROWS)[:2])
            removed = np.arange(0, ROWS, 2)
            writer.remove(removed)
            write_cells(int(value))
            reader.refresh()
            has_all_but(reader, removed)
        """,
        stored, engine, value,
    )  # fmt: skip


@ENGINES
def test_an_index_is_opened_with_one_reading_of_its_cells(stored, engine):
    """The sizes of cells and the lists of the scanner agree, although the file is changed between them."""
    survives(
        """
        from semcut.indexes.storage.store import Store
        from pathlib import Path
        store = Store.open(Path(path))
        write_cells(int(value))
        with FaissIndex(store, engine, "cpu") as index:
            has_all_but(index, [])
        """,
        stored, engine, 0,
    )  # fmt: skip


@ENGINES
def test_a_removed_row_is_not_removed_again_although_the_ids_of_the_file_change(stored, engine):
    with FaissIndex.open(stored, engine=engine) as index:
        assert index.contains([5]).all()
        with open(column(stored, "ids"), "r+b") as file:
            file.seek(5 * 8)
            file.write((10**6).to_bytes(8, "little"))
        index.remove([5])
        assert not index.contains([5]).any()
        with pytest.raises(KeyError):
            index.remove([5])
        assert len(index) == ROWS - 1
        assert index.snapshot.cells.sizes.sum() == ROWS - 1


@pytest.mark.parametrize("value", [0, -1, ROWS, 2**40])
def test_removed_rows_that_change_under_an_open_index_are_not_read(stored, value):
    with FaissIndex.open(stored, engine="faiss") as index:
        index.remove(np.arange(100, 200))
    with FaissIndex.open(stored, engine="faiss") as index:
        right = index.search(batch(ROWS)[:8], cutoff=0.1)
        with open(column(stored, "removed"), "r+b") as file:
            file.write(np.full(100, value, "<i8").tobytes())
        assert [damage.where for damage in index.verify()] == [str(column(stored, "removed"))]
        assert sum(len(part) for part in index.iterate()) == len(index.ids()) == ROWS - 100
        assert_same(index.search(batch(ROWS)[:8], cutoff=0.1), right)
        index.remove([3])
        index.compact()
        assert index.verify() == []
        assert index.ids().tolist() == sorted(set(range(ROWS)) - {3, *range(100, 200)})


# The column itself


def kept(path: Path, extent: Extent | None = None, **options: bool) -> KeptColumn:
    opened = KeptColumn(path, ROW, **options)
    if extent is not None:
        opened.mark_unverified(extent)
    return opened


def test_rows_are_those_of_the_last_extent_that_was_adopted(tmp_path):
    writer = kept(tmp_path / "cells", create=True)
    extent = writer.append(Extent(), np.arange(6))
    reader = kept(tmp_path / "cells", extent, writable=False)
    before = reader.view(6)
    for size in (1, 4, 1000):
        extent = writer.append(extent, np.arange(extent.rows, extent.rows + size))
        assert writer.view(extent.rows).tolist() == list(range(extent.rows))
        reader.mark_unverified(extent, extent.rows - size)
        assert reader.view(extent.rows).tolist() == list(range(extent.rows))
    assert before.tolist() == list(range(6))
    assert not before.flags.writeable


def test_rows_that_were_appended_in_vain_are_replaced(tmp_path):
    writer = kept(tmp_path / "cells", create=True)
    extent = writer.append(Extent(), np.arange(6))
    writer.append(extent, np.arange(100, 110))
    after = writer.append(extent, np.arange(6, 9))
    assert writer.view(9).tolist() == kept(tmp_path / "cells", after).view(9).tolist() == list(range(9))


def test_rows_that_do_not_match_their_checksum_are_damage(tmp_path):
    extent = kept(tmp_path / "cells", create=True).append(Extent(), np.arange(10))
    with open(tmp_path / "cells", "r+b") as file:
        file.seek(5 * 4)
        file.write(b"\7")
    with pytest.raises(DamagedIndexError, match="rows 4 to 7 do not match their checksum"):
        kept(tmp_path / "cells", extent)
    with pytest.raises(DamagedIndexError, match="cells has 40 bytes, expected 44 for 11 rows"):
        kept(tmp_path / "cells", Extent(11, extent.crcs))


def test_rows_that_a_snapshot_uses_are_not_read_again(tmp_path):
    """They share a block with new rows, which can be chosen so that the checksum of the block fits."""
    writer = kept(tmp_path / "cells", create=True)
    extent = writer.append(Extent(), np.arange(6))
    reader = kept(tmp_path / "cells", extent)
    (tmp_path / "cells").write_bytes(np.array([0, 1, 2, 3, 8, 9, 6, 7], "<i4").tobytes())
    forged = kept(tmp_path / "other", create=True).append(Extent(), np.array([0, 1, 2, 3, 8, 9, 6, 7]))
    with pytest.raises(DamagedIndexError, match="cells was changed by another program while it was read"):
        reader.mark_unverified(forged, 6)
    assert reader.view(6).tolist() == list(range(6))


def test_a_store_keeps_its_cells_in_memory(stored):
    store = Store.open(stored)
    column(stored, "cells").write_bytes(bytes(4 * ROWS))
    assert store.snapshot.columns.cells.any()
    store.close()


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, np.inf, np.nan, "signalling"])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
def test_stored_values_that_are_no_numbers_print_no_warning(value, ranking, path, batch, monkeypatch):
    """A warning of numpy would be shown to a user who searches an index from someone else; in tests it is an error."""

    def forged(columns: Columns, name: str) -> np.ndarray:
        array = np.array(columns.raw()[name])
        array.reshape(-1).view(np.uint32)[:] = 0x7FA00000
        if value != "signalling":
            array[:] = value
        return array

    monkeypatch.setattr(Columns, "features", lambda self, rows: (forged(self, "features"), rows))
    monkeypatch.setattr(Columns, "probabilities", lambda self, rows: (forged(self, "probabilities"), rows))
    with FaissIndex.open(path, engine="faiss") as index:
        for shortlist in (3, None):
            index.search(batch[:2], k=2, cutoff=0, shortlist=shortlist, ranking=ranking)
