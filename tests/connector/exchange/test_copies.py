"""Indexes go to files of other programs and back, bit for bit; files of other programs become indexes, or one error."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given

from semcut import DataError, DuplicateIdError, Encodings, FaissIndex, IndexConfig
from semcut.connector.exchange import copies, parquet_files
from semcut.connector.exchange.copies import export_encodings, import_encodings
from semcut.connector.exchange.encoding_columns import FileShape
from semcut.connector.retrieval.model_link import read_content, write_link
from semcut.indexes.unfinished import is_marked
from tests.command import semcut
from tests.indexes.generate import PROPERTY, World, worlds

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES, BITS, DIM = 30, 64, 6


def records(count: int = 40, *, seed: int = 0, uris: bool = True) -> Encodings:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, DIM))
    return Encodings(
        probabilities=rng.dirichlet(np.full(CLASSES, 0.2), count).astype(np.float32),
        codes=rng.integers(0, 256, (count, BITS // 8), np.uint8),
        features=(features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32),
        ids=rng.permutation(10 * count)[:count],
        uris=[f"ä/{one}.png" if one % 3 else None for one in range(count)] if uris else None,
    )


def columns(batch: Encodings) -> dict[str, np.ndarray]:
    return {name: getattr(batch, name) for name in ("probabilities", "codes", "features", "ids")}


def assert_same(left: FaissIndex, right: FaissIndex) -> None:
    assert left.config == right.config
    np.testing.assert_array_equal(left.ids(), right.ids())
    if len(left):
        one, other = left.get(left.ids()), right.get(left.ids())
        for name in ("probabilities", "codes", "features"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
        assert left.uris(left.ids()) == right.uris(left.ids())
        assert one.attributes == other.attributes


@PROPERTY
@given(world=worlds())
def test_an_index_that_was_exported_and_imported_is_the_same(world: World, tmp_path_factory):
    place = tmp_path_factory.mktemp("copy")
    with FaissIndex.create(place / "index", world.config, engine="faiss") as index:
        for batch in world.batches:
            index.add(batch)
    assert export_encodings(place / "index", place / "x.parquet") == len(world.records)
    assert import_encodings(place / "x.parquet", place / "again") == len(world.records)
    with FaissIndex.open(place / "index", engine="faiss") as index, FaissIndex.open(place / "again") as again:
        assert_same(index, again)


def test_the_command_copies_the_link_to_the_network_and_all_uris(tmp_path):
    link = {"model": str(tmp_path / "net"), "sha256": "0" * 64, "head": "paper", "binarisation": "eq3", "roots": ["/r"]}
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records())
        write_link(tmp_path / "index", **link)
    done = semcut("export", "index", "x.parquet", cwd=tmp_path)
    assert done.stdout == "40 records written to x.parquet.\n"
    done = semcut("import", "x.parquet", "--out", "again", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"index": "again", "added": 40}
    assert read_content(tmp_path / "again") == link
    with FaissIndex.open(tmp_path / "index") as index, FaissIndex.open(tmp_path / "again") as again:
        assert_same(index, again)
    assert "unfinished" not in semcut("info", "again", cwd=tmp_path).stdout


def test_an_imported_index_is_unfinished_until_it_has_its_link(tmp_path, monkeypatch):
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records())
        write_link(tmp_path / "index", model="/m", sha256="0" * 64, head="h", binarisation="b", exclude_training=True)
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    marked = []
    monkeypatch.setattr(copies, "write_link", lambda place, **link: marked.append((is_marked(place), link)))
    import_encodings(tmp_path / "x.parquet", tmp_path / "again")
    ((before, link),) = marked
    assert before
    assert link["exclude_training"] is True
    assert not is_marked(tmp_path / "again")


def test_a_file_of_semcut_is_what_other_programs_read(tmp_path):
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records())
        held = index.get(index.ids())
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["ids"] for row in table] == held.ids.tolist()
    assert [row["uris"] for row in table] == list(held.uris or ())
    assert [row["codes"] for row in table] == [code.tobytes() for code in held.codes]
    for row, probabilities, feature in zip(table, held.probabilities, held.features, strict=True):
        present = np.flatnonzero(probabilities)
        assert dict(zip(row["classes"], row["probabilities"], strict=True)) == dict(
            zip(present.tolist(), probabilities[present].tolist(), strict=True)
        )
        np.testing.assert_array_equal(np.array(row["features"], np.float32), feature)


def written(kind: str, path, batch: Encodings) -> None:
    """Write records as another program would."""
    arrays = columns(batch)
    if batch.uris is not None:
        arrays["uris"] = np.array([uri or "" for uri in batch.uris])
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "npz, compressed":
        np.savez_compressed(path, **arrays)
    elif kind == "npz of bytes":
        if "uris" in arrays:
            arrays["uris"] = np.char.encode(arrays["uris"], "utf-8")
        np.savez(path, **arrays, other=np.array({"an": "object"}, dtype=object))
    elif kind == "npy":
        fields = [(name, one.dtype, one.shape[1:]) for name, one in arrays.items()]
        np.save(path, np.array(list(zip(*arrays.values(), strict=True)), np.dtype(fields)))
    else:
        lists = {name: one.tolist() for name, one in arrays.items()} | (
            {} if batch.uris is None else {"uris": batch.uris}
        )
        if kind == "parquet of lists":
            table = pa.table(lists)
        else:
            codes = pa.array([one.tobytes() for one in batch.codes], pa.large_binary())
            table = pa.table(
                {**lists, "codes": codes, "features": pa.array(lists["features"], pa.large_list(pa.float32()))}
            )
        pq.write_table(table, path, row_group_size=7)


KINDS = {
    "npz": "x.npz",
    "npz, compressed": "x.npz",
    "npz of bytes": "x.npz",
    "npy": "x.npy",
    "parquet of lists": "x.parquet",
    "parquet of bytes": "x.parquet",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uris", [True, False])
def test_what_other_programs_write_becomes_an_index(kind, uris, tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 9)
    batch = records(uris=uris)
    written(kind, tmp_path / KINDS[kind], batch)
    assert import_encodings(tmp_path / KINDS[kind], tmp_path / "index") == 40
    with FaissIndex.create(tmp_path / "expected", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as expected:
        expected.add(batch)
        with FaissIndex.open(tmp_path / "index") as index:
            assert_same(index, expected)


def test_rows_are_numbered_and_may_have_any_mass(tmp_path):
    arrays = columns(records(5))
    del arrays["ids"]
    arrays["probabilities"] /= 2
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=r"x\.npz: probabilities of row 0 sum to 0\.5"):
        import_encodings(tmp_path / "x.npz", tmp_path / "index")
    assert not (tmp_path / "index").exists()
    semcut("import", "x.npz", "--out", "index", "--any-mass", cwd=tmp_path)
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.ids().tolist() == [0, 1, 2, 3, 4]


def test_the_least_shape_of_a_batch_is_one_row():
    assert FileShape(9, 10_000, 64, 65_536).batch_rows() > 100
    assert FileShape(9, 10**9, 64, 10**9).batch_rows() == 1


def changed(**change: object):
    """Return a function that writes an archive of 5 records with some arrays changed; None leaves one out."""

    def write(path) -> None:
        arrays = {**columns(records(5)), **change}
        np.savez(path, **{name: one for name, one in arrays.items() if one is not None})

    return write


def cut(path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((5, CLASSES), np.float32))
    content = path.with_suffix(".npy").read_bytes()[:-8]
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("probabilities", "codes", "features"):
            archive.writestr(f"{name}.npy", content)


def forged_header(path) -> None:
    """An archive of little whose header says that it has a petabyte."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 250), }"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("probabilities", "codes", "features"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)


def header_of(text: str):
    """Return a function that writes an archive whose arrays have this header and nothing else."""

    def write(path) -> None:
        header = text.encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("probabilities", "codes", "features"):
                archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)

    return write


def titled(title: str, column: str = ""):
    """Return a function that writes an array of 5 records, of which one column, or one more, has a name and a title."""

    def write(path) -> None:
        arrays = {name: one for name, one in columns(records(5)).items() if name != title or column}
        arrays |= {} if column else {"": np.arange(5)}
        fields = [((title, "extra") if name == column else name, a.dtype, a.shape[1:]) for name, a in arrays.items()]
        np.save(path, np.array(list(zip(*arrays.values(), strict=True)), np.dtype(fields)))

    return write


def column_twice(path) -> None:
    lists = {name: one.tolist() for name, one in columns(records(5)).items()}
    table = pa.table(lists)
    pq.write_table(table.append_column("codes", table.column("codes")), path)


def parquet(**change: object):
    """Return a function that writes a Parquet file of 5 records with some columns changed."""

    def write(path) -> None:
        lists = {name: one.tolist() for name, one in columns(records(5)).items()}
        table = {name: one for name, one in {**lists, **change}.items() if one is not None}
        pq.write_table(pa.table(table), path)

    return write


def packed_by_bzip2(path) -> None:
    np.savez(path, **columns(records(5)))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


BAD = {
    "no such file": ("x.npz", lambda _: None, r"cannot read .*x\.npz: No such file"),
    "another ending": ("x.csv", lambda path: path.write_text("a"), r"expected a name that ends in \.parquet, \.npz"),
    "not an archive": ("x.npz", lambda path: path.write_text("nothing"), "cannot be read as an array of numpy"),
    "not a Parquet file": ("x.parquet", lambda path: path.write_text("nothing"), "no Parquet file that can be read"),
    "a directory": ("x.parquet", lambda path: path.mkdir(), "not a regular file"),
    "no features": ("x.npz", changed(features=None), "has no column features, expected probabilities, codes, features"),
    "no column": ("x.npz", changed(probabilities=None, codes=None), "no column probabilities and no column codes"),
    "fewer rows": ("x.npz", changed(codes=np.zeros((4, 8), np.uint8)), "codes have 4 rows but probabilities have 5"),
    "one dimension": ("x.npz", changed(codes=np.zeros(5, np.uint8)), r"codes have shape \(5,\), expected 2 dimension"),
    "no dimension": ("x.npz", changed(codes=np.uint8(3)), "codes is a single value"),
    "objects": ("x.npz", changed(uris=np.array([{}] * 5, object)), "Python objects, which are not read|is cut"),
    "numbers as uris": ("x.npz", changed(uris=np.arange(5)), "uris have dtype int64, expected text"),
    "no characters in uris": (
        "x.npz", changed(uris=np.full(10, 0x7FFFFFFF, np.uint32).view("U2")), "a uri is not valid text"
    ),
    "half a pair in uris": ("x.npz", changed(uris=np.array(["a\ud800"] * 5)), "is not valid text"),
    "a title of an id": ("x.npy", titled("ids"), "the field 'extra' has the title 'ids', a second name: save the"),
    "a title of a column": ("x.npy", titled("probabilities", "probabilities"), "field 'extra' has the title 'prob"),
    "a title of an attribute": ("x.npy", titled("attribute_a"), "the field 'extra' has the title 'attribute_a'"),
    "dates as ids": ("x.npz", changed(ids=np.zeros(5, "M8[D]")), "ids have dtype .*, expected integers or text"),
    "by column": ("x.npz", changed(features=np.zeros((5, DIM), np.float32, "F")), "stored column by column"),
    "NaN": ("x.npz", changed(features=np.full((5, DIM), np.nan, np.float32)), "features of row 0 hold NaN"),
    "floats as codes": ("x.npz", changed(codes=np.zeros((5, 8), np.float32)), "codes have dtype float32"),
    "one class": ("x.npz", changed(probabilities=np.ones((5, 1), np.float32)), "probabilities of 1 classes, expected"),
    "short codes": ("x.npz", changed(codes=np.zeros((5, 1), np.uint8)), "cannot become an index: bits = 8: expected"),
    "an array that is cut": ("x.npz", cut, "cut or damaged"),
    "a forged header": ("x.npz", forged_header, "cut or damaged"),
    "compressed by bzip2": ("x.npz", packed_by_bzip2, "is compressed in another way than numpy does"),
    "wide text": ("x.npz", changed(uris=np.array(["x"] * 5, "U300000")), "has 1,200,.* bytes in a row, expected"),
    "a huge dimension": (
        "x.npz", header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424, 2), }"), "cut or"
    ),
    "a header that is no Python": ("x.npz", header_of("{'descr': '<f4', 'shape': ((((("), "cannot be read as an array"),
    "a column twice": ("x.parquet", column_twice, "has the column 'codes' twice"),
    "text as probabilities": ("x.parquet", parquet(probabilities=[["a"] * CLASSES] * 5), "probabilities have dtype"),
    "a plain array": ("x.npy", lambda path: np.save(path, np.zeros((5, 3))), "expected an array of records"),
    "rows of other lengths": (
        "x.parquet", parquet(features=[[0.5] * DIM] * 4 + [[0.5]]), "row 4: features have 1 values, expected 6"
    ),
    "a missing value": (
        "x.parquet", parquet(features=[[0.5] * DIM] * 4 + [None]), "features has no value at position 4"
    ),
    "numbers as lists": ("x.parquet", parquet(codes=[1] * 5), "codes have the type int64, expected lists"),
    "large integers as codes": ("x.parquet", parquet(codes=[[256] * 8] * 5), "codes have dtype int64, expected uint8"),
    "bytes as ids in Parquet": ("x.parquet", parquet(ids=[b"a"] * 5), "ids have dtype object, expected int64"),
    "classes without a number of classes": ("x.parquet", parquet(classes=[[1]] * 5), "how many classes there are"),
    "no rows": (
        "x.parquet", parquet(ids=[], probabilities=[], codes=[], features=[]), "has no rows, expected at least one"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_error_and_no_index(case, tmp_path):
    name, write, message = BAD[case]
    write(tmp_path / name)
    (tmp_path / "index").mkdir()
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / name, tmp_path / "index")
    assert not list((tmp_path / "index").iterdir())
    done = semcut("import", name, "--out", "index", cwd=tmp_path, status=1)
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_id_that_occurs_twice_is_refused_in_any_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 2)
    np.savez(tmp_path / "x.npz", **{**columns(records(5)), "ids": np.array([1, 2, 3, 4, 1])})
    with pytest.raises(DuplicateIdError, match="1"):
        import_encodings(tmp_path / "x.npz", tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "2", "was exported in format b'2', expected b'1'"),
        ("config", {"classes": CLASSES, "bits": 32, "dim": DIM}, "has bits = 64, but its configuration says 32"),
        ("config", {"classes": 10**9}, "no configuration of an index that can be read"),
        ("config", dict.fromkeys(map(str, range(9))), "no configuration of an index that can be read"),
        ("config", [], "no configuration of an index that can be read"),
        ("config", {"classes": CLASSES, "bits": 64, "dim": DIM, "prior": [1] * 10_000}, "no configuration of an index"),
        ("network", "x" * 70_000, "no configuration of an index that can be read"),
    ],
)
def test_forged_metadata_are_refused(key, value, message, tmp_path):
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records(5))
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    written = value if key == "format" else json.dumps(value)
    content = {**table.schema.metadata, f"semcut.{key}".encode(): written.encode()}
    pq.write_table(table.replace_schema_metadata(content), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / "x.parquet", tmp_path / "again")


def test_a_similarity_that_is_too_large_for_the_metadata_is_not_exported(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_CONFIG_BYTES", 1000)
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=30, bits=32, dim=2, similarity=np.eye(30))):
        pass
    with pytest.raises(DataError, match=r"the similarity of the index takes .* copy the index with `semcut backup`"):
        export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("classes", "probabilities", "message"),
    [
        ([[CLASSES]] * 5, [[0.5]] * 5, f"row 0: there is no class {CLASSES}, expected 0 to {CLASSES - 1}"),
        ([[1]] * 4 + [[2, 2]], [[0.5]] * 4 + [[0.1, 0.2]], "row 4: class 2 occurs twice"),
        ([[1]] * 5, [[0.5]] * 4 + [[0.1, 0.2]], "row 4: 1 classes but 2 probabilities"),
    ],
)
def test_forged_classes_are_refused(classes, probabilities, message, tmp_path):
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records(5))
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    for name, values, kind in (("classes", classes, pa.uint16()), ("probabilities", probabilities, pa.float32())):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values, pa.list_(kind)))
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / "x.parquet", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_import_of_a_cell_for_each_record_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "MOST_CELL_BYTES", 4 * 20 * CLASSES)
    np.savez(tmp_path / "x.npz", **columns(records(200)))
    with pytest.raises(DataError, match=f"belong to more than .* cells of {CLASSES} classes, which take 2,400 bytes"):
        import_encodings(tmp_path / "x.npz", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_failed_import_leaves_a_link_and_its_target_as_they_were(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    arrays = columns(records(5))
    arrays["features"][3] = np.inf
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match="features of row 3 hold NaN or infinity"):
        import_encodings(tmp_path / "x.npz", tmp_path / "link")
    assert (tmp_path / "link").readlink().name == "target"
    assert not list((tmp_path / "target").iterdir())


def test_a_file_that_is_there_is_replaced_only_if_it_is_one(tmp_path):
    with FaissIndex.create(tmp_path / "index", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
        index.add(records(5))
    for _ in range(2):
        semcut("export", "index", "x.parquet", cwd=tmp_path)
    (tmp_path / "photo.parquet").write_bytes(b"\xff\xd8")
    done = semcut("export", "index", "photo.parquet", cwd=tmp_path, status=2)
    assert "is not a Parquet file: choose another name" in " ".join(done.stderr.split())
    assert (tmp_path / "photo.parquet").read_bytes() == b"\xff\xd8"
    with pytest.raises(DataError, match=r"expected a name that ends in \.parquet"):
        export_encodings(tmp_path / "index", tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"cannot write .*: No such file or directory"):
        export_encodings(tmp_path / "index", tmp_path / "missing" / "x.parquet")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["index", "photo.parquet", "x.parquet"]


def test_an_export_has_the_link_of_its_records(tmp_path, monkeypatch):
    for name, count in (("index", 10), ("later", 20)):
        with FaissIndex.create(tmp_path / name, IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
            index.add(records(count))
        write_link(tmp_path / name, model=f"/{name}", sha256="0" * 64, head="h", binarisation="b")

    def late(place):
        if (tmp_path / "later").exists():
            place.rename(tmp_path / "former")
            (tmp_path / "later").rename(place)
        return read_content(place)

    monkeypatch.setattr(copies, "read_content", late)
    assert export_encodings(tmp_path / "index", tmp_path / "x.parquet") == 20
    import_encodings(tmp_path / "x.parquet", tmp_path / "again")
    assert read_content(tmp_path / "again")["model"] == "/later"
