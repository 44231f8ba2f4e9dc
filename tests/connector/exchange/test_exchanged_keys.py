"""Ids that are strings go to files and back, bit for bit; text of other programs becomes keys, or one sentence."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut import DataError, DuplicateIdError, Encodings, FaissIndex, IndexConfig
from semcut.connector.exchange.copies import export_encodings, import_encodings
from semcut.connector.exchange.encoding_columns import FileShape
from semcut.indexes.keys import is_key
from semcut.indexes.stored_values import stored_values
from tests.command import semcut
from tests.connector.exchange.test_copies import columns, records
from tests.indexes.generate import PROPERTY, assert_same_records, classified

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CONFIG = IndexConfig(classes=4, bits=32, dim=4, string_ids=True)
HARD = ["a", "\u00e9/\n%2F.jpg", "0", " ", "\x1b]0;x\x07", "x" * 1000, "\U0001f600", "-1"]


def made(place: Path, keys: list[str]) -> Encodings:
    with FaissIndex.create(place, CONFIG, engine="faiss") as index:
        index.add(replace(classified(np.random.default_rng(len(keys)), CONFIG, len(keys)), ids=keys))
        return index.get(index.ids())


def read(place: Path) -> Encodings:
    with FaissIndex.open(place, engine="faiss") as index:
        assert index.config == CONFIG
        assert index.verify() == []
        return index.get(index.ids())


@PROPERTY
@given(keys=st.lists(st.text(min_size=1, max_size=8).filter(is_key), max_size=30, unique=True))
def test_an_index_with_keys_that_was_exported_and_imported_is_the_same(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("copy")
    before = made(place / "index", keys)
    assert export_encodings(place / "index", place / "x.parquet") == len(keys)
    assert import_encodings(place / "x.parquet", place / "again") == len(keys)
    assert_same_records(read(place / "again"), before)


def test_a_file_has_the_keys_as_text(tmp_path):
    before = made(tmp_path / "index", HARD)
    semcut("export", "index", "x.parquet", cwd=tmp_path)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.field("ids") == pa.field("ids", pa.string(), nullable=False)
    assert table.column("ids").to_pylist() == list(before.keys)
    semcut("import", "x.parquet", "--out", "again", cwd=tmp_path)
    assert_same_records(read(tmp_path / "again"), before)


def test_the_column_of_ids_decides_for_an_export_that_was_changed(tmp_path):
    made(tmp_path / "index", ["a", "b", "c"])
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    for ids in (pa.array([7, 5, 6]), pa.array(["7", "5", "6"])):
        pq.write_table(table.set_column(0, "ids", ids), tmp_path / "y.parquet")
        import_encodings(tmp_path / "y.parquet", tmp_path / f"{ids.type}")
    with FaissIndex.open(tmp_path / "int64") as index:
        assert index.config == CONFIG.model_copy(update={"string_ids": False})
        assert index.ids().tolist() == [5, 6, 7]
    assert sorted(read(tmp_path / "string").keys) == ["5", "6", "7"]


def test_metadata_that_claim_keys_do_not_make_any(tmp_path):
    arrays = {name: one.tolist() for name, one in columns(records(5)).items()}
    config = json.dumps({"classes": 30, "bits": 64, "dim": 6, "string_ids": True})
    metadata = {"semcut.format": "1", "semcut.config": config}
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), tmp_path / "x.parquet")
    import_encodings(tmp_path / "x.parquet", tmp_path / "index")
    with FaissIndex.open(tmp_path / "index") as index:
        assert not index.config.string_ids


WRITTEN: dict[str, Any] = {
    "string": lambda keys: pa.array(keys),
    "large_string": lambda keys: pa.array(keys, pa.large_string()),
    "dictionary": lambda keys: pa.array(keys).dictionary_encode(),
    "x.npz": np.array,
    "x.npz of bytes": lambda keys: np.char.encode(np.array(keys), "utf-8"),
    "x.npy": np.array,
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_text_of_other_programs_becomes_keys(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 3)
    batch = stored_values(CONFIG, replace(classified(np.random.default_rng(0), CONFIG, len(HARD)), ids=HARD))
    arrays = {**columns(batch), "ids": WRITTEN[kind](HARD)}
    name = kind.split()[0] if kind.startswith("x.") else "x.parquet"
    if name == "x.npz":
        np.savez(tmp_path / name, **arrays)
    elif name == "x.npy":
        fields = [(name, one.dtype, one.shape[1:]) for name, one in arrays.items()]
        np.save(tmp_path / name, np.array(list(zip(*arrays.values(), strict=True)), np.dtype(fields)))
    else:
        lists = {name: arrays[name].tolist() for name in ("probabilities", "codes", "features")}
        pq.write_table(pa.table({**lists, "ids": arrays["ids"]}), tmp_path / name)
    assert import_encodings(tmp_path / name, tmp_path / "index") == len(HARD)
    found = read(tmp_path / "index")
    order = [HARD.index(key) for key in found.keys]
    assert sorted(order) == list(range(len(HARD)))
    for column in ("probabilities", "codes", "features"):
        np.testing.assert_array_equal(getattr(found, column), getattr(batch, column)[order])


def text(*values: int) -> np.ndarray:
    """Return 5 texts of one character each, which numpy does not check: its numbers."""
    return np.array([*values, *range(97, 102 - len(values))], np.uint32).view("U1")


NO_KEY = "is no key, expected text of 1 to 1000 characters"
BAD: dict[str, tuple[Any, str]] = {
    "empty": (np.array(["a", "b", "", "d", "e"]), f"id '' {NO_KEY}"),
    "too long": (np.array(["x" * 1001, "b", "c", "d", "e"]), f"id 'x+... {NO_KEY}"),
    "a lone surrogate": (text(0xD800), rf"id '\\ud800' {NO_KEY}"),
    "a zero inside": (np.array(["a\0b", *"bcde"]), rf"id 'a\\x00b' {NO_KEY}"),
    "no character": (text(0x110000), "an id is not valid text"),
    "no characters": (np.full(10, 0x7FFFFFFF, np.uint32).view("U2"), "an id is not valid text"),
    "bytes that are not UTF-8": (np.array([b"\xff", *[b"a", b"b", b"c", b"d"]]), r"an id holds b'\\xff', not UTF-8"),
    "wide": (np.array(list("abcde"), "U300000"), "has 1,200,.* bytes in a row, expected at most"),
    "rows of text": (np.array([["a", "b"]] * 5), r"ids have shape \(5, 2\), expected 1 dimension"),
    "fewer": (np.array(["a"]), "ids have 1 rows but probabilities have 5"),
    "objects": (np.array([*"abcd", None], object), "ids hold Python objects"),
    "floats": (np.zeros(5), "ids have dtype float64, expected integers or text"),
    "nothing in Parquet": (pa.array(["a", None, "c", "d", "e"]), "ids has no value at position 1"),
    "empty in Parquet": (pa.array(["a", "", "c", "d", "e"]), f"id '' {NO_KEY}"),
    "too long in Parquet": (pa.array(["a", "x" * 1001, "c", "d", "e"]), NO_KEY),
    "a zero in Parquet": (pa.array(["a", "a\0", "c", "d", "e"]), rf"id 'a\\x00' {NO_KEY}"),
    "bytes in Parquet": (pa.array([b"a"] * 5), "ids have dtype object, expected int64"),
    "a surrogate in Parquet": (
        pa.StringArray.from_buffers(5, pa.py_buffer(np.array([0, 3, 4, 5, 6, 7], np.int32)),
                                    pa.py_buffer(b"\xed\xa0\x80abcd")), "an id is not UTF-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_text_that_is_no_key_is_one_sentence_and_no_index(case, tmp_path):
    ids, message = BAD[case]
    arrays = columns(records(5))
    if isinstance(ids, np.ndarray):
        name = "x.npz"
        np.savez(tmp_path / name, **{**arrays, "ids": ids})
    else:
        name = "x.parquet"
        pq.write_table(pa.table({**{name: one.tolist() for name, one in arrays.items()}, "ids": ids}), tmp_path / name)
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / name, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    done = semcut("import", name, "--out", "index", cwd=tmp_path, status=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "\x1b" not in done.stderr


def test_a_key_that_occurs_twice_is_refused_in_any_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 2)
    np.savez(tmp_path / "x.npz", **{**columns(records(5)), "ids": np.array(["\x1b[31m", "b", "c", "d", "\x1b[31m"])})
    with pytest.raises(DuplicateIdError, match=r"1 ids \('\\x1b\[31m'\) are in the index already"):
        import_encodings(tmp_path / "x.npz", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_small_archive_that_states_wide_text_is_refused_in_little_memory(tmp_path):
    """Its header says that the ids of 30,000 records take 24 GB."""
    rows = 30_000
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in columns(records(1)).items():
            wide = np.dtype("U200000") if name == "ids" else one.dtype
            stated = {"descr": wide.str, "fortran_order": False, "shape": (rows, *one.shape[1:])}
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, stated)
                member.write(b"" if name == "ids" else one.tobytes() * rows)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="ids is cut or damaged"):
            import_encodings(tmp_path / "x.npz", tmp_path / "index")
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "index").exists()
