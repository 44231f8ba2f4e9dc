"""Attributes go to Parquet files with the types of Arrow and back; columns and arrays of other programs become ones."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut import DataError, Encodings, FaissIndex, IndexConfig, InvalidParameterError
from semcut.connector.exchange.copies import export_encodings, import_encodings
from semcut.connector.exchange.encoding_columns import FileShape
from tests.command import semcut
from tests.indexes.generate import ATTRIBUTES, attributes

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS, CLASSES = 60, 4
CONFIG = IndexConfig(classes=CLASSES, bits=32, dim=3, attributes=ATTRIBUTES)  # type: ignore[arg-type]
UTC = timezone.utc
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def arrays(rows: int = ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "probabilities": rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32),
        "codes": rng.integers(0, 256, (rows, 4), np.uint8),
        "features": np.eye(3, dtype=np.float32)[rng.integers(0, 3, rows)],
    }


def stored(place: Path) -> dict[str, list[Any]]:
    with FaissIndex.open(place, engine="faiss") as index:
        return {name: index.attributes(index.ids())[name] for name in index.config.attributes}


def test_an_export_has_the_types_of_arrow_and_an_import_every_value(tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 7)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(
            Encodings(**arrays(), ids=np.arange(ROWS), attributes=attributes(np.random.default_rng(1), CONFIG, ROWS))
        )
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    found = {name: str(table.schema.field(name).type) for name in ATTRIBUTES}
    assert found == {
        "price": "double", "stars": "int64", "camera": "string", "tags": "list<element: string>",
        "taken": "timestamp[us, tz=UTC]", "sold": "bool",
    }  # fmt: skip
    before = stored(tmp_path / "index")
    assert all(None in values and len({*values}) > 2 for values in before.values())
    assert table.column("stars").to_pylist() == before["stars"]
    assert table.column("taken").to_pylist() == before["taken"]
    assert table.column("tags").to_pylist() == [None if one is None else list(one) for one in before["tags"]]
    import_encodings(tmp_path / "x.parquet", tmp_path / "again")
    assert stored(tmp_path / "again") == before
    with FaissIndex.open(tmp_path / "again") as index:
        assert index.config == CONFIG
        assert list(index.config.attributes) == list(ATTRIBUTES)


FOREIGN: dict[str, tuple[Any, Any, Any]] = {  # column, the asked type, what is stored
    "truth": (pa.array([True, None, False]), None, [True, None, False]),
    "small": (pa.array([1, None, 3], pa.uint8()), None, [1, None, 3]),
    "whole": (pa.array([1, None, 3], pa.int32()), "float", [1.0, None, 3.0]),
    "half": (pa.array([0.5, None, float("nan")], pa.float16()), None, [0.5, None, None]),
    "money": (pa.array([Decimal("1.25"), None, Decimal(3)], pa.decimal128(8, 2)), None, [1.25, None, 3.0]),
    "day": (pa.array([date(2024, 5, 1), None, date(1, 1, 1)]), None,
            [datetime(2024, 5, 1, tzinfo=UTC), None, datetime(1, 1, 1, tzinfo=UTC)]),
    "second": (pa.array([NOON, None, NOON], pa.timestamp("s", "Europe/Berlin")), None, [NOON, None, NOON]),
    "nano": (pa.array([NOON.replace(tzinfo=None), None, None], pa.timestamp("ns")), None, [NOON, None, None]),
    "text": (pa.array(["a", None, "b"], pa.large_string()), None, ["a", None, "b"]),
    "iso": (pa.array(["2024-05-01T14:00:00+02:00", None, "2024-05-01"]), "datetime",
            [NOON, None, NOON - timedelta(hours=12)]),
    "coded": (pa.array(["a", None, "a"]).dictionary_encode(), None, ["a", None, "a"]),
    "tags": (pa.array([["b", "a"], None, []], pa.large_list(pa.string())), None, [("a", "b"), None, ()]),
}  # fmt: skip


def test_columns_of_other_programs_become_attributes_when_they_are_named(tmp_path):
    lists = {name: one.tolist() for name, one in arrays(3).items()}
    pq.write_table(pa.table({**lists, **{name: one[0] for name, one in FOREIGN.items()}}), tmp_path / "x.parquet")
    asked = [f"--attribute={name}" + (f"={kind}" if kind else "") for name, (_, kind, _) in FOREIGN.items()]
    semcut("import", "x.parquet", "--out", "index", *asked, cwd=tmp_path)
    assert stored(tmp_path / "index") == {name: one[2] for name, one in FOREIGN.items()}
    import_encodings(tmp_path / "x.parquet", tmp_path / "none")
    assert stored(tmp_path / "none") == {}


def test_a_column_that_was_added_to_an_export_becomes_one_more_attribute(tmp_path):
    with FaissIndex.create(tmp_path / "index", CONFIG.model_copy(update={"attributes": {"stars": "int"}})) as index:
        index.add(Encodings(**arrays(3), ids=np.arange(3), attributes={"stars": [1, None, 3]}))
    export_encodings(tmp_path / "index", tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet").append_column("price", pa.array([0.5, None, 2.0]))
    pq.write_table(table, tmp_path / "x.parquet")
    import_encodings(tmp_path / "x.parquet", tmp_path / "again", attributes={"price": None, "stars": None})
    assert stored(tmp_path / "again") == {"stars": [1, None, 3], "price": [0.5, None, 2.0]}
    with pytest.raises(DataError, match="has the attribute stars of type int, not float"):
        import_encodings(tmp_path / "x.parquet", tmp_path / "other", attributes={"stars": "float"})


@pytest.mark.parametrize(
    ("column", "asked", "message"),
    [
        ([1, 2, 3], {"cost": None}, "has no column for the attribute 'cost'; it has 'price'"),
        (["1", "2", "3"], {"price": "int"}, r"row 0 is '1', expected an integer"),
        ([[1], [2], [3]], {"price": None}, r"the column price has the type list<(item|element): int64>, which no"),
        ([0.5, float("inf"), 1], {"price": None}, "row 1 is inf, expected a finite number"),
        (["a", "", "b"], {"price": None}, "row 1 is '', expected text of 1 to 1000"),
    ],
)
def test_a_column_that_is_no_attribute_is_one_sentence(column, asked, message, tmp_path):
    lists = {name: one.tolist() for name, one in arrays(3).items()}
    pq.write_table(pa.table({**lists, "price": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / "x.parquet", tmp_path / "index", attributes=asked)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("wrong", ["price", ["price"], {"in": None}, {"price": "number"}, {"price": 3}, {3: None}])
def test_attributes_to_import_are_types_by_name(wrong, tmp_path):
    with pytest.raises(InvalidParameterError, match="attribute"):
        import_encodings(tmp_path / "x.npz", tmp_path / "index", attributes=wrong)


ARRAYS: dict[str, tuple[Any, list[Any]]] = {
    "truth": (np.array([True, False, True]), [True, None, True]),
    "small": (np.array([1, 2, 3], np.uint8), [1, None, 3]),
    "half": (np.array([0.5, 1, np.nan], np.float16), [0.5, None, None]),
    "time": (np.array(["2024-05-01T12", "2024", "NaT"], "datetime64[h]"), [NOON, None, None]),
    "text": (np.array(["ä", "b", ""]), ["ä", None, None]),
    "bytes": (np.char.encode(np.array(["ä", "b", ""]), "utf-8"), ["ä", None, None]),
    "tags": (np.array([["b", "a"], ["c", ""], ["", ""]]), [("a", "b"), None, ()]),
}


@pytest.mark.parametrize("kind", ["x.npz", "x.npy"])
def test_arrays_of_numpy_become_attributes(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(FileShape, "batch_rows", lambda _: 2)
    columns = {**arrays(3), **{f"attribute_{name}": one for name, (one, _) in ARRAYS.items()}}
    columns |= {f"missing_{name}": np.array([False, True, False]) for name in ARRAYS}
    if kind == "x.npz":
        np.savez_compressed(tmp_path / kind, **columns)
    else:
        fields = [(name, one.dtype, one.shape[1:]) for name, one in columns.items()]
        np.save(tmp_path / kind, np.array(list(zip(*columns.values(), strict=True)), np.dtype(fields)))
    import_encodings(tmp_path / kind, tmp_path / "index", attributes={"small": "float"})
    assert stored(tmp_path / "index") == {name: values for name, (_, values) in ARRAYS.items()}
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.config.attributes == {
            "truth": "bool", "small": "float", "half": "float", "time": "datetime", "text": "category",
            "bytes": "category", "tags": "categories",
        }  # fmt: skip


def no_text(width: int) -> np.ndarray:
    """Return 3 texts of a number that is no character; Python makes strings of those that have several."""
    return np.full(3 * width, 0x110000, np.uint32).view(f"U{width}")


@pytest.mark.parametrize(
    ("more", "asked", "message"),
    [
        ({"attribute_in": np.arange(3)}, {}, "'in' is no name of an attribute"),
        ({"attribute_a": np.arange(2)}, {}, r"attribute_a has shape \(2,\), expected 3 rows"),
        ({"attribute_a": np.array(1)}, {}, "attribute_a is a single value"),
        ({"attribute_a": np.zeros((3, 2))}, {}, r"shape \(3, 2\) and dtype float64, expected one bool"),
        ({"attribute_a": np.zeros(3, complex)}, {}, "dtype complex128, expected one bool"),
        ({"attribute_a": np.array([{}] * 3)}, {}, "attribute_a hold Python objects"),
        ({"attribute_a": np.array([b"\xff"] * 3)}, {}, "the attribute a has a value that is not valid text"),
        *(({"attribute_a": no_text(width)}, {"a": kind}, "a has a value that is not valid text")
          for width in (1, 2) for kind in (None, "datetime")),
        ({"attribute_a": no_text(2)[:, None]}, {}, "a has a value that is not valid text"),
        ({"attribute_a": np.zeros(3, np.longdouble)}, {}, "a has dtype .*, which an index cannot hold: save it as f"),
        ({"attribute_a": np.array([1, 0, 1500], "M8[ns]")}, {}, "row 0 is .*, expected a datetime in whole microsec"),
        ({"attribute_a": np.array(["x"] * 3)}, {"a": "int"}, "attribute a of row 0 is 'x', expected an integer"),
        ({"missing_a": np.zeros(3, bool)}, {}, "expected one bool for each row of attribute_a"),
        ({"attribute_a": np.arange(3), "missing_a": np.arange(3)}, {}, "missing_a has dtype int64"),
        ({}, {"a": None}, "has no column for the attribute 'a'; it has no others"),
        ({f"attribute_a{one}": np.arange(3) for one in range(65)}, {}, "attributes.*64"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_attributes_are_one_sentence(more, asked, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays(3), **more)
    with pytest.raises(DataError, match=message):
        import_encodings(tmp_path / "x.npz", tmp_path / "index", attributes=asked)
    assert not (tmp_path / "index").exists()
