"""Parquet files with images: the columns that `datasets` and others write, and one sentence for any other file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semcut.connector.data import parquet_images, sources
from semcut.connector.data.archive_members import Budget
from semcut.connector.data.parquet_images import parquet_samples
from semcut.connector.data.sample_folders import Sample
from semcut.indexes.errors import DataError, SemcutWarning
from tests.connector.data.packed import IMAGE, Row, picture, write_parquet

BYTES = pa.array([b"one", b"two", b"three"])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, columns: dict[str, Any], features: object = None, **settings: Any) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **settings)
    return path


def read(path: Path) -> tuple[list[Sample], Counter[str]]:
    left_out: Counter[str] = Counter()
    with open(path, "rb") as stream:
        return list(parquet_samples(stream, path.name, Budget(1 << 20, 1 << 30), left_out)), left_out


def labels(path: Path) -> list[tuple[str, ...]]:
    return [sample.labels for sample in read(path)[0]]


def names(*found: str, kind: str = "ClassLabel") -> dict[str, Any]:
    return {"names": list(found), "_type": kind}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE, pa.struct([("bytes", pa.large_binary())])])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_images_are_bytes_or_have_them(kind: Any, group: int, tmp_path: Path) -> None:
    values = [{"bytes": one} for one in BYTES.to_pylist()] if pa.types.is_struct(kind) else BYTES.to_pylist()
    path = write(tmp_path / "a.parquet", {"image": pa.array(values, kind)}, row_group_size=group)
    assert read(path)[0] == [
        Sample((), f"a.parquet#{row}", content, ()) for row, content in enumerate([b"one", b"two", b"three"])
    ]


def test_the_column_of_images_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    assert len(read(write(path, {"img": BYTES, "n": [1, 2, 3]}))[0]) == 3
    features = {"img": {"_type": "Image"}, "mask": {"_type": "Value"}}
    assert read(write(path, {"mask": [b"", b"", b""], "img": BYTES}, features))[0][0].content == b"one"
    assert read(write(path, {"mask": [b"x", b"x", b"x"], "image": BYTES}))[0][0].content == b"one"


def test_names_of_labels_are_in_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"image": BYTES, "label": [1, -1, 0]}
    assert labels(write(path, columns, {"label": names("cat", "dog")})) == [("dog",), (), ("cat",)]
    assert labels(write(path, columns)) == [("1",), ("-1",), ("0",)]
    assert labels(write(path, columns, {"label": {"_type": "Value"}})) == [("1",), ("-1",), ("0",)]
    named = {"image": BYTES, "fine_label": [1, None, 0]}
    assert labels(write(path, named, {"fine_label": names("cat", "dog")})) == [("dog",), (), ("cat",)]
    assert labels(write(path, named)) == [(), (), ()]
    texts = {"image": BYTES, "label": pa.array(["a", "", None]).dictionary_encode()}
    assert labels(write(path, texts)) == [("a",), (), ()]
    several = {"image": BYTES, "labels": [[1, 0, 1], [], None], "label": [None, None, 7]}
    features = {"labels": {"feature": names("cat", "dog"), "_type": "Sequence"}}
    assert labels(write(path, several, features)) == [("dog", "cat"), (), ("7",)]


def test_a_path_becomes_part_of_the_name(tmp_path: Path) -> None:
    rows = [{"bytes": b"x", "path": path} for path in ("a/b/IMG 1.jpg", "../../x", "a/..", "a\x1b.jpg", "é" * 90, None)]
    path = write(tmp_path / "a.parquet", {"image": pa.array(rows, IMAGE)})
    ends = ["-IMG 1.jpg", "-x", "-..", "", "-" + "é" * 90, ""]
    assert [sample.name for sample in read(path)[0]] == [f"a.parquet#{row}{end}" for row, end in enumerate(ends)]
    path = write(tmp_path / "b.parquet", {"image": BYTES, "uri": ["s3://a/b.png", None, "c"]})
    assert [sample.name for sample in read(path)[0]] == ["b.parquet#0-b.png", "b.parquet#1", "b.parquet#2-c"]


def test_rows_without_bytes_are_counted(tmp_path: Path) -> None:
    rows = [Row(picture(0), ("a",)), Row(None, ("a",)), Row(b"", ("b",)), Row(picture(1), ("b",))]
    path = write_parquet(tmp_path / "a.parquet", rows)
    with pytest.warns(SemcutWarning, match=f"^{path}: left out 2 x row without the bytes of an image, or with"):
        assert len(sources.load(path)) == 2
    path = write_parquet(tmp_path / "b.parquet", rows[1:3])
    with pytest.raises(DataError, match=rf"^{path} has no images \(2 x row without the bytes of an image"):
        sources.load(path)


def test_images_above_the_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_images, "MAX_SAMPLE_BYTES", 3)
    samples, left_out = read(write(tmp_path / "a.parquet", {"image": BYTES}))
    assert [sample.content for sample in samples] == [b"one", b"two"]
    assert left_out == {"row without the bytes of an image, or with too many": 1}


@pytest.mark.parametrize(
    ("columns", "features", "reason"),
    [
        ({"a": [1], "b": ["x"]}, None, "has no column image of bytes, .* and no other .*: its columns are 'a', 'b'$"),
        ({"a": [b"x"], "b": [b"x"]}, None, "and more than one other column of this type: its columns are 'a', 'b'$"),
        ({"image": ["x.jpg"]}, None, "has no column image of bytes"),
        ({"a.b": [b"x"]}, None, "has no column image of bytes"),
        (
            {"image": [b"x"], "label": [1.5]},
            None,
            "the column 'label' has the type double, expected a text or an",
        ),
        ({"image": [b"x"], "labels": ["a"]}, None, "the column 'labels' has the type string, expected a list of texts"),
        (
            {"image": [b"x"], "label": [2]},
            {"label": names("a")},
            "row 0, column label has 2, expected a number from 0 to",
        ),
        ({"image": [b"x"], "label": [-2]}, {"label": names("a")}, "row 0, column label has -2, expected a number"),
        (
            {"image": [b"x"], "label": [0]},
            {"label": names("")},
            "the names of the classes of the column 'label' are",
        ),
        (
            {"image": [b"x"], "label": [0]},
            {"label": {"names": 3}},
            "the names of the classes of the column 'label' are",
        ),
        ({"image": [b"x"], "label": ["x" * 2000]}, None, "row 0, column label has 'xxx.*, expected text of 1 to 1,000"),
    ],
)
def test_columns_of_other_types_are_one_sentence(
    columns: dict[str, Any], features: object, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.parquet", columns, features)
    with pytest.raises(DataError, match=f"^cannot unpack {path}: .*{reason}") as error:
        sources.list_images(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("features", [[], {"label": []}, {"label": {"feature": 3}}, {"image": None}, 5])
def test_metadata_that_is_none_is_as_if_there_were_none(features: object, tmp_path: Path) -> None:
    assert labels(write(tmp_path / "a.parquet", {"image": BYTES, "label": [0, 1, 2]}, features)) == [
        ("0",),
        ("1",),
        ("2",),
    ]


def test_files_that_are_damaged_are_one_sentence(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", [Row(picture(number), ("a",)) for number in range(20)]).read_bytes()
    path = tmp_path / "b.parquet"
    for content in (b"", b"PAR1", b"text", whole[:-20], whole[len(whole) // 2 :], b"PAR1" + bytes(900) + whole[904:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^cannot unpack {path}: it is no Parquet file that can be ") as error:
            sources.list_images(path)
        assert "\n" not in str(error.value)


def test_groups_and_rows_are_bounded_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = [b"x" * 1000] * 2 + [b"y" * 1000] * 2
    path = write(tmp_path / "a.parquet", {"image": large, "other": large}, row_group_size=2, use_dictionary=False)
    monkeypatch.setattr(parquet_images, "MAX_GROUP_BYTES", 5000)
    assert len(read(path)[0]) == 4  # other columns do not count
    monkeypatch.setattr(parquet_images, "MAX_GROUP_BYTES", 1500)
    with pytest.raises(DataError, match=r"row group 0 has 4,\d* bytes, expected at most 1,500: write it with"):
        sources.list_images(path)
    monkeypatch.setattr(parquet_images, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match=r"it has 4 rows, expected at most 3$"):
        sources.list_images(path)


def test_a_file_does_not_unpack_to_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semcut.connector.data import archive_members

    path = write(tmp_path / "a.parquet", {"image": [b"x" * 10**6] * 100})  # a dictionary holds the image once
    monkeypatch.setattr(archive_members, "UNCHECKED_BYTES", 1 << 20)
    with pytest.raises(DataError, match=f"cannot unpack {path}: it unpacks to more than 1,000 times its size"):
        sources.list_images(path)
