"""Column files, and columns in memory: append, map, compare with checksums."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import ClosedIndexError, DamagedIndexError, IndexConfig, StorageError
from semcut.indexes.storage import column_files
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.column_specs import NAMES, Spec, names_of, specs
from semcut.indexes.storage.memory_column import MemoryColumn
from tests.indexes.generate import PROPERTY

ROWS = Spec(np.dtype("<f4"), (3,), block=4)
IDS = Spec(np.dtype("<i8"), ())


@pytest.fixture(params=["file", "memory"])
def column(request, tmp_path):
    """An empty column of rows of three float32."""
    column = new_column(tmp_path / "features" if request.param == "file" else None)
    yield column
    column.close()


def new_column(path: Path | None) -> Column | MemoryColumn:
    """Return an empty column of rows of three float32, in memory without a path."""
    if path is None:
        return MemoryColumn(ROWS)
    return Column(path, ROWS, create=True)


def rows(first: int, count: int) -> np.ndarray:
    return np.arange(3 * first, 3 * (first + count), dtype=np.float32).reshape(count, 3)


def appended(column: Column | MemoryColumn, *batches: np.ndarray) -> Extent:
    """Append the batches to an empty column and return the extent."""
    extent = Extent()
    for batch in batches:
        extent = column.append(extent, batch)
    return extent


def test_appended_rows_are_read_back(column):
    assert appended(column, rows(0, 4), rows(4, 1)).rows == 5
    column.sync()
    np.testing.assert_array_equal(column.view(5), rows(0, 5), strict=True)
    np.testing.assert_array_equal(column.view(2), rows(0, 2), strict=True)


def test_a_column_without_rows_has_an_empty_view(column):
    assert column.view(0).shape == (0, 3)
    appended(column, rows(0, 0))
    assert column.view(0).dtype == np.float32


def test_a_view_cannot_be_written_to(column):
    appended(column, rows(0, 2))
    with pytest.raises(ValueError, match="read-only"):
        column.view(2)[0] = 1


def test_a_view_outlives_later_appends_and_the_column(tmp_path):
    for path in (tmp_path / "features", None):
        column = new_column(path)
        extent = appended(column, rows(0, 2))
        view = column.view(2)
        column.append(extent, rows(2, 5000))
        column.append(extent, rows(7, 1))  # over rows that are not valid
        column.close()
        np.testing.assert_array_equal(view, rows(0, 2))


def test_rows_that_are_not_valid_are_overwritten(column):
    extent = appended(column, rows(0, 3))
    column.append(extent, rows(3, 7))
    after = column.append(extent, rows(50, 2))
    np.testing.assert_array_equal(column.view(5), np.concatenate([rows(0, 3), rows(50, 2)]))
    if isinstance(column, Column):
        column.mark_unverified(after)
        column.check(after)
        with pytest.raises(DamagedIndexError):
            column.view(6)


def test_a_column_shorter_than_expected_is_damaged(tmp_path):
    column = new_column(tmp_path / "features")
    appended(column, rows(0, 2))
    with pytest.raises(DamagedIndexError, match=r"has 24 bytes, expected 36 for 3 rows"):
        column.view(3)


@PROPERTY
@given(sizes=st.lists(st.integers(0, 50), max_size=6), block=st.sampled_from([1, 7, 100, 1 << 24]), file=st.booleans())
def test_batches_of_any_size_add_up(tmp_path_factory, sizes, block, file):
    column = new_column(tmp_path_factory.mktemp("column") / "features" if file else None)
    extent = Extent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_files, "_WRITE_BYTES", block)
        for size in sizes:
            extent = column.append(extent, rows(extent.rows, size))
    assert extent.rows == sum(sizes)
    np.testing.assert_array_equal(column.view(extent.rows), rows(0, extent.rows))
    if file:
        data = rows(0, extent.rows).tobytes()
        assert extent.crcs.tolist() == [zlib.crc32(data[start : start + 48]) for start in range(0, len(data), 48)]
        column.mark_unverified(extent)
        column.check(extent)
    column.close()


# checksums


@PROPERTY
@given(
    first=st.integers(0, 13),
    second=st.integers(0, 13),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
    checked=st.lists(st.integers(0, 25), min_size=1, max_size=4),
)
def test_a_flipped_bit_is_found_before_a_row_of_its_block_is_used(tmp_path_factory, first, second, at, bit, checked):
    """Also in a block that two appends have filled. Blocks have four rows of twelve bytes."""
    path = tmp_path_factory.mktemp("column") / "features"
    column = new_column(path)
    extent = appended(column, rows(0, first), rows(first, second))
    column.close()
    wanted = np.array([-1, *(row for row in checked if row < extent.rows)])
    data = bytearray(path.read_bytes())
    if data:
        at %= len(data)
        data[at] ^= 1 << bit
        path.write_bytes(data)
    column = Column(path, ROWS, writable=False)
    column.mark_unverified(extent)
    if data and at // 48 in (wanted[1:] // 4).tolist():
        for _ in range(2):  # the second check finds it again
            with pytest.raises(DamagedIndexError, match=rf"rows {at // 48 * 4} to \d+ do not match their checksum"):
                column.check(extent, wanted)
    else:
        column.check(extent, wanted)
        column.check(extent, wanted[:, None])
    if data:
        with pytest.raises(DamagedIndexError):
            column.check(extent)
    column.close()


def test_blocks_that_another_process_extends_are_compared_again(tmp_path):
    writer = new_column(tmp_path / "features")
    extent = appended(writer, rows(0, 6))
    reader = Column(tmp_path / "features", ROWS, writable=False)
    reader.mark_unverified(extent)
    reader.check(extent)
    after = writer.append(extent, rows(6, 6))
    reader.mark_unverified(after, extent.rows)
    reader.check(extent)  # the earlier extent still matches, but does not cover the added rows
    with open(tmp_path / "features", "r+b") as file:
        file.seek(7 * 12)
        file.write(b"\x99")
    reader.check(after, np.array([0, 3, 8, 11]))
    with pytest.raises(DamagedIndexError, match="rows 4 to 7"):
        reader.check(after, np.array([4]))


def test_a_closed_column_is_not_read(tmp_path):
    column = new_column(tmp_path / "features")
    extent = appended(column, rows(0, 2))
    column.mark_unverified(extent)
    column.close()
    with pytest.raises(ClosedIndexError):
        column.check(extent)


# layouts, sizes, errors


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a.astype(">f4"), np.float64]
)
def test_values_of_any_layout_are_written_as_little_endian_rows(column, layout):
    appended(column, layout(rows(0, 4)))
    np.testing.assert_array_equal(column.view(4), rows(0, 4))


def test_a_column_in_memory_takes_no_more_than_its_rows():
    """The column reserves addresses, not memory; it is copied once, and then grows in place, even beyond huge pages."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    column, before = MemoryColumn(Spec(np.dtype("<f4"), (1024,))), resident()
    block = np.ones((1024, 1024), np.float32)
    extent = appended(column, block)
    first = column.view(1024)
    for _ in range(4):
        extent = column.append(extent, block)
    copied = column.view(5 * 1024)
    assert first.sum() == 1024 * 1024
    del first
    for _ in range(19):
        extent = column.append(extent, block)
    taken = resident() - before
    assert copied.ctypes.data == column.view(24 * 1024).ctypes.data
    assert 90e6 < taken < 150e6
    assert column.view(24 * 1024).sum() == 24 * 1024 * 1024


def test_a_column_that_cannot_fit_in_memory_is_refused():
    column = MemoryColumn(Spec(np.dtype("<f4"), (1 << 20,)))
    with pytest.raises(StorageError, match="does not fit in memory"):
        column.append(Extent(1 << 40), np.ones((1, 1 << 20), np.float32))


def test_a_file_contains_only_the_rows(tmp_path):
    column = Column(tmp_path / "ids", IDS, create=True)
    appended(column, np.array([1, 2**62]))
    column.close()
    assert (tmp_path / "ids").read_bytes() == b"\1" + bytes(7) + bytes(7) + b"\x40"


def test_a_new_column_does_not_replace_a_file(tmp_path):
    (tmp_path / "ids").write_bytes(b"precious")
    with pytest.raises(StorageError, match=r"ids: File exists"):
        Column(tmp_path / "ids", IDS, create=True)
    assert (tmp_path / "ids").read_bytes() == b"precious"


def test_a_column_that_is_missing_is_damage(tmp_path):
    with pytest.raises(DamagedIndexError, match=r"ids is missing"):
        Column(tmp_path / "ids", IDS)


def test_a_column_opened_for_reading_is_not_written_to(tmp_path):
    Column(tmp_path / "ids", IDS, create=True).close()
    column = Column(tmp_path / "ids", IDS, writable=False)
    with pytest.raises(StorageError, match=r"cannot write to .*ids"):
        appended(column, np.array([1]))
    column.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_the_error_of_a_refused_write_says_why_and_what_to_do(tmp_path, monkeypatch, number):
    column = new_column(tmp_path / "features")
    extent = appended(column, rows(0, 2))

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(StorageError, match=rf"{os.strerror(number)}.*no record is lost") as error:
            column.append(extent, rows(2, 2))
    assert ("free some space" in str(error.value)) == (number != errno.EIO)
    column.append(extent, rows(2, 2))
    np.testing.assert_array_equal(column.view(4), rows(0, 4))


def test_a_write_that_is_cut_short_is_continued(tmp_path, monkeypatch):
    column = new_column(tmp_path / "features")
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: whole(handle, data[:5], offset))
    appended(column, rows(0, 7))
    np.testing.assert_array_equal(column.view(7), rows(0, 7))


def test_a_read_that_is_cut_short_is_continued(tmp_path, monkeypatch):
    """Linux reads at most 2 GiB at once."""
    column = new_column(tmp_path / "features")
    extent = appended(column, rows(0, 7))
    column.mark_unverified(extent)
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda handle, size, offset: pread(handle, min(size, 5), offset))
    monkeypatch.setattr(os, "preadv", lambda handle, buffers, offset: preadv(handle, [buffers[0][:5]], offset))
    column.check(extent)
    np.testing.assert_array_equal(column.stretch(2, 5), rows(2, 5), strict=True)
    assert column.read(extent, 1, 100) == rows(1, 6).tobytes()
    with pytest.raises(DamagedIndexError, match="has 84 bytes, expected 96 for 8 rows"):
        column.stretch(2, 6)
    column.close()
    with pytest.raises(ClosedIndexError):
        column.stretch(2, 5)


def test_every_column_has_a_type_and_a_shape():
    config = IndexConfig(classes=7, bits=72, dim=5, stored_features="float32")
    found = {name: (spec.dtype.str, spec.shape) for name, spec in specs(config).items()}
    every = {
        "ids": ("<i8", ()),
        "codes": ("|u1", (9,)),
        "probabilities": ("<f4", (7,)),
        "features": ("<f4", (5,)),
        "cells": ("<i4", ()),
        "uri_ends": ("<i8", ()),
        "uri_bytes": ("|u1", ()),
        "removed": ("<i8", ()),
    }
    assert found == every
    assert tuple(found) == names_of(config) == NAMES[:8]
    config = IndexConfig(classes=40, bits=72, dim=5)
    found = {name: (spec.dtype.str, spec.shape) for name, spec in specs(config).items()}
    assert found == every | {"probabilities": ("<u2", (48,)), "features": ("<f2", (5,))}
    assert specs(config.model_copy(update={"stored_features": "int8"}))["features"].dtype.str == "|i1"
    config = IndexConfig(classes=7, bits=72, dim=5, stored_features="float32", attributes={"a": "bool", "b": "float"})
    found = {name: (spec.dtype.str, spec.shape) for name, spec in specs(config).items()}
    assert found == every | {"attributes": ("|u1", (9,)), "vocabulary": ("|u1", ())}
    assert tuple(found) == names_of(config) == NAMES[:10]
