"""Files of numpy that state much and hold little are refused in little memory; links that cannot be imported again."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semcut import DataError, FaissIndex, IndexConfig
from semcut.connector.exchange import copies
from semcut.connector.exchange.copies import export_encodings, import_encodings
from semcut.connector.retrieval.model_link import LINK, write_link
from tests.connector.exchange.test_copies import BITS, CLASSES, DIM, columns, records

RECORD = np.dtype([("probabilities", "<f4", (2,)), ("codes", "u1", (4,)), ("features", "<f4", (1,))])


def long_header(path: Path) -> None:
    """An archive whose header has 64 MiB, which are deflated to 64 KB."""
    length = 1 << 26
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("probabilities.npy", "w") as member:
        member.write(b"\x93NUMPY\2\0" + struct.pack("<I", length))
        for _ in range(length >> 20):
            member.write(b" " * (1 << 20))


def stated_header(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\2\0" + struct.pack("<I", 0xFFFF_FFFF) + b" " * 100)


def cut_header(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\2\0\1")


def hole(path: Path) -> None:
    """A header, and a terabyte of records that occupies nothing."""
    with path.open("wb") as file:
        described = np.lib.format.dtype_to_descr(RECORD)
        header = {"descr": described, "fortran_order": False, "shape": (10**12 // RECORD.itemsize,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 10**12 // RECORD.itemsize * RECORD.itemsize)


def hole_before_an_archive(path: Path) -> None:
    """An archive may unpack to a thousand times its size, of which a hole would be most."""
    content = io.BytesIO()
    np.savez(content, **columns(records(5)))
    with path.open("wb") as file:
        file.seek(1 << 34)
        file.write(content.getvalue())


def many_members(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(16_000):
            archive.writestr(f"{number:020}", b"")


FORGED: list[tuple[str, Callable[[Path], None], str]] = [
    ("x.npz", long_header, "its header has 67,108,864 bytes, expected at most 10,000"),
    ("x.npy", stated_header, "its header has 4,294,967,295 bytes, expected at most 10,000"),
    ("x.npy", cut_header, "cannot be read as an array"),
    ("x.npy", hole, "has a size of 1,000,000,.* most of them a hole"),
    ("x.npz", hole_before_an_archive, "has a size of 17,179,.* most of them a hole"),
    ("x.npz", many_members, "its list of records has more than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("name", "write", "message"), FORGED)
def test_a_file_that_states_much_is_refused_in_little_memory(name, write, message, tmp_path):
    write(tmp_path / name)
    import_encodings_of_nothing(tmp_path)  # modules that are imported once
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            import_encodings(tmp_path / name, tmp_path / "index")
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "index").exists()


def import_encodings_of_nothing(place: Path) -> None:
    (place / "nothing.npy").touch()
    with pytest.raises(DataError):
        import_encodings(place / "nothing.npy", place / "index")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_all_versions_and_stored_columns_above_the_largest_directory_are_read(version, tmp_path):
    batch = records(100_000 if version == (1, 0) else 5)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, array in columns(batch).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, version, allow_pickle=False)
    assert import_encodings(tmp_path / "x.npz", tmp_path / "index") == len(batch)


def made(place: Path) -> Path:
    with FaissIndex.create(place, IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records(5))
    return place


def test_a_link_that_an_import_could_not_write_is_not_exported(tmp_path):
    pytest.importorskip("pyarrow")
    link = {"model": "/m", "sha256": "0" * 64, "head": "h", "binarisation": "b", "roots": []}
    for roots, exported in ((100, True), (190, False)):
        link["roots"] = [f"/写真{'真' * 100}{number}" for number in range(roots)]
        content = json.dumps(link, ensure_ascii=False)
        place = made(tmp_path / f"index {roots}")
        (place / LINK).write_text(content, encoding="utf-8")
        assert len(content.encode()) < 1 << 16
        if exported:
            export_encodings(place, tmp_path / "x.parquet")
            assert import_encodings(tmp_path / "x.parquet", tmp_path / "again") == 5
        else:
            with pytest.raises(DataError, match=r"link of the index to its network takes .*: give it fewer roots"):
                export_encodings(place, tmp_path / "y.parquet")
    assert not (tmp_path / "y.parquet").exists()


def test_a_failed_import_deletes_only_a_link_that_it_wrote(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    write_link(made(tmp_path / "index"), model="/m", sha256="0" * 64, head="h", binarisation="b")
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")

    def fail_after(index, **link):
        write_link(index, **link)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(copies, "write_link", fail_after)
    with pytest.raises(OSError, match="No space left"):
        import_encodings(tmp_path / "x.parquet", tmp_path / "again")
    assert not (tmp_path / "again").exists()

    def appears(done, total):
        (tmp_path / "again" / LINK).write_text("mine")

    with pytest.raises(OSError, match="No space left"):
        import_encodings(tmp_path / "x.parquet", tmp_path / "again", progress=appears)
    assert [file.name for file in (tmp_path / "again").iterdir()] == [LINK]
