"""Attributes of images come from lists, follow their records through every change, and limit searches."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut import DataError, InvalidEncodingsError, InvalidParameterError, attribute
from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet, list_images
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.relinking import relink
from semcut.connector.retrieval.relocation import relocate
from semcut.indexes import FaissIndex
from tests.command import semcut

TYPES = {
    "price": "float",
    "stars": "int",
    "sold": "bool",
    "taken": "datetime",
    "camera": "category",
    "tags": "categories",
}
ASKED = [f"--attribute={name}={kind}" for name, kind in TYPES.items()]
CSV = "path,price,label,stars,sold,taken,camera,tags,other\n"
NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def place(digits: ImageSet, tmp_path: Path) -> Path:
    """A folder of six photos that were written long ago."""
    for number in range(6):
        target = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits.files[60 * number], target)
        os.utime(target, (10**9, 10**9))
    return tmp_path


def file_of(number: int) -> str:
    return f"photos/{'ab'[number % 2]}/{number}.png"


def written(place: Path, name: str = "list.csv", **changes: str) -> str:
    """Write a list of the first four photos; a change is another row, by the number of the photo."""
    rows = [
        f"{file_of(n)},{n / 2},x,{n}.0,{'True' if n % 2 else 'false'},2024-05-01T14:00:00+02:00,Lumix,b; a,?"
        for n in range(4)
    ]
    rows[3] = f"{file_of(3)},,,,,,,,"
    for number, row in changes.items():
        rows[int(number[1:])] = row
    (place / name).write_text(CSV + "\n".join(rows) + "\n")
    return name


def of_records(place: Path, name: str = "index") -> dict[str, dict[str, Any]]:
    """Return the attributes of each record by the number of its photo."""
    with FaissIndex.open(place / name, engine="faiss") as index:
        ids = index.ids()
        found = index.attributes(ids)
        return {
            Path(uri or "").stem: {name: values[row] for name, values in found.items()}
            for row, uri in enumerate(index.uris(ids))
        }


def arrays(place: Path) -> dict[str, tuple[Any, ...]]:
    with FaissIndex.open(place / "index", engine="faiss") as index:
        found = index.get(index.ids())
        return {
            str(uri): (
                record,
                *(getattr(found, name)[row].tobytes() for name in ("probabilities", "codes", "features")),
            )
            for row, (record, uri) in enumerate(zip(found.ids.tolist(), found.uris or (), strict=True))
        }


def expected(number: int) -> dict[str, Any]:
    return {
        "price": number / 2, "stars": number, "sold": number % 2 == 1, "taken": NOON, "camera": "Lumix",
        "tags": ("a", "b"),
    }  # fmt: skip


MISSING = dict.fromkeys(TYPES)


@pytest.fixture
def indexed(place: Path, model: Checkpoint) -> Path:
    semcut("index", written(place), "--model", model.path, "--out", "index", *ASKED, cwd=place)
    return place


def test_columns_of_a_list_become_attributes_by_their_types(indexed: Path):
    assert of_records(indexed) == {**{str(number): expected(number) for number in range(3)}, "3": MISSING}
    shown = json.loads(semcut("info", "index", "--json", cwd=indexed).stdout)
    assert shown["attributes"] == TYPES
    assert "camera" in semcut("info", "index", cwd=indexed).stdout


def test_fields_of_json_are_values(place: Path):
    rows = [
        {"path": file_of(0), "price": 1, "tags": ["b", "a"], "taken": "2024-05-01T12:00:00Z", "sold": True},
        {"path": file_of(1), "price": None, "tags": [], "camera": "x;y"},
    ]
    (place / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list_images(place / "list.jsonl", TYPES).attributes  # type: ignore[arg-type]
    assert found == {
        "price": [1.0, None], "tags": [("a", "b"), ()], "taken": [NOON, None], "sold": [True, None],
        "camera": [None, "x;y"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("price", "cheap", "price is 'cheap', expected a finite number, or nothing"),
        ("price", "inf", "price is 'inf', expected a finite number"),
        ("price", "1_0", "price is '1_0', expected a finite number"),
        ("stars", "2.5", "stars is '2.5', expected an integer"),
        ("stars", "9" * 30, "stars is '9+', expected an integer"),
        ("sold", "yes", "sold is 'yes', expected true or false"),
        ("taken", "yesterday", "taken is 'yesterday', expected a datetime"),
        ("camera", "x" * 1001, "expected text of 1 to 1000 characters"),
        ("tags", "a;" + "x" * 1001, "expected texts with ; between them"),
    ],
)
def test_a_value_of_another_type_is_one_sentence_with_its_line(name, value, message, place: Path):
    (place / "list.csv").write_text(f"path,{name}\n{file_of(0)},\n{file_of(1)},{value}\n")
    with pytest.raises(DataError, match=f"list.csv: line 3: the attribute .*{message}"):
        list_images(place / "list.csv", TYPES)  # type: ignore[arg-type]


def test_a_list_without_the_column_is_refused_before_anything_is_made(place: Path, model: Checkpoint):
    (place / "list.csv").write_text(f"path,price\n{file_of(0)},1\n")
    done = semcut("index", "list.csv", "--model", model.path, "--out", "index", *ASKED, cwd=place, status=1)
    assert "list.csv has no column stars, sold, taken, camera, tags" in done.stderr
    assert not (place / "index").exists()


def test_add_changes_attributes_of_images_that_are_there_and_encodes_none(indexed: Path):
    before = arrays(indexed)
    (indexed / "more.csv").write_text(f"path,price,tags\n{file_of(0)},9,\n{file_of(1)},0.5,a;b\n{file_of(4)},4,c\n")
    for dry in (["--dry-run"], []):
        done = json.loads(semcut("add", "index", "more.csv", "--json", *dry, cwd=indexed).stdout)
        assert (done["added"], done["replaced"], done["known"], done["updated"]) == (1, 0, 2, 1)
    found = of_records(indexed)
    assert found["0"] == {**expected(0), "price": 9.0, "tags": None}
    assert found["1"] == expected(1)
    assert found["4"] == {**MISSING, "price": 4.0, "tags": ("c",)}
    after = arrays(indexed)
    assert {uri: after[uri] for uri in before} == before
    assert (
        "0 images added, 0 replaced, 3 known already, 0 skipped"
        in semcut("add", "index", "more.csv", cwd=indexed).stdout
    )
    synced = json.loads(semcut("sync", "index", "--json", cwd=indexed).stdout)
    assert (synced["replaced"], synced["unchanged"], synced["updated"]) == (0, 5, 0)


def test_sync_keeps_attributes_of_changed_and_moved_images_and_takes_those_of_a_list(indexed: Path, digits: ImageSet):
    shutil.copy(digits.files[7], indexed / file_of(0))
    os.rename(indexed / file_of(1), indexed / "photos" / "a" / "1.png")
    shutil.copy(indexed / file_of(2), indexed / "photos" / "b" / "copy.png")
    os.utime(indexed / file_of(0), (10**9 + 5, 10**9 + 5))
    done = json.loads(semcut("sync", "index", "--json", cwd=indexed).stdout)
    assert (done["added"], done["replaced"], done["moved"]) == (3, 1, 1)
    found = of_records(indexed)
    assert [found[str(number)] for number in range(3)] == [expected(number) for number in range(3)]
    assert found["copy"] == found["4"] == MISSING
    before = arrays(indexed)
    name = written(indexed, c2=f"{file_of(2)},7,,,,,Leica,,", c1=f"{file_of(4)},8,,,,,,,")
    for dry in (["--dry-run"], []):
        done = json.loads(semcut("sync", "index", "--attributes", name, "--json", *dry, cwd=indexed).stdout)
        assert (done["updated"], done["encoded"], done["unchanged"]) == (2, 0, 7)
    assert of_records(indexed)["2"] == {**MISSING, "price": 7.0, "camera": "Leica"}
    assert arrays(indexed) == before
    refused = semcut("sync", "index", "--attributes", "photos", cwd=indexed, status=1)
    assert "photos is no list with attributes of the index, which are: price, stars" in refused.stderr


def test_attributes_survive_reencoding_relinking_relocation_and_removal(indexed: Path, model: Checkpoint):
    other = indexed / "other"
    shutil.copytree(model.path, other)
    name = written(indexed, c0=f"{file_of(0)},9,,,,,,,")
    done = semcut("sync", "index", "--reencode", "--model", other, "--attributes", name, "--json", cwd=indexed)
    assert json.loads(done.stdout)["replaced"] == 4
    found = of_records(indexed)
    assert found["0"] == {**MISSING, "price": 9.0}
    assert (found["1"], found["2"], found["4"]) == (expected(1), expected(2), MISSING)
    os.rename(indexed / "photos", indexed / "pictures")
    relocate(indexed / "index", images=indexed / "pictures")
    semcut("remove", "index", "--uri", "*/0.png", cwd=indexed)
    semcut("compact", "index", cwd=indexed)
    relink(indexed / "index", other)
    found = of_records(indexed)
    assert (found["1"], found["2"], "0" in found) == (expected(1), expected(2), False)


def test_searches_and_removals_take_filters(indexed: Path):
    image = file_of(1)
    done = json.loads(
        semcut("search", "index", image, "--where", "price < 1 and sold == true", "--json", cwd=indexed).stdout
    )
    ((hit,),) = [query["hits"] for query in done]
    assert (hit["id"], hit["attributes"]["taken"], hit["attributes"]["tags"]) == (
        1,
        "2024-05-01T12:00:00+00:00",
        ["a", "b"],
    )
    wrong = semcut("search", "index", image, "--where", "cost < 1", cwd=indexed, status=1).stderr
    assert "where" in wrong
    assert "cost" in wrong
    assert "Traceback" not in wrong
    measured = semcut("evaluate", "index", "photos", "--where", "price < 1", "-k", 1, "--json", cwd=indexed)
    assert json.loads(measured.stdout)["records"] == 2
    for dry in (["--dry-run"], []):
        removed = json.loads(semcut("remove", "index", "--where", "price is null", *dry, "--json", cwd=indexed).stdout)
        assert [one["id"] for one in removed["removed"]] == [3]
    assert sorted(of_records(indexed)) == ["0", "1", "2"]
    refused = semcut("remove", "index", "--where", "not", cwd=indexed, status=1)
    assert "where, at character" in refused.stderr
    assert sorted(of_records(indexed)) == ["0", "1", "2"]


def test_a_connector_takes_attributes_and_filters(place: Path, model: Checkpoint):
    files = [place / file_of(number) for number in range(6)]
    with Connector.create(place / "index", model.path, attributes={"price": "float", "tags": "categories"}) as made:
        assert (
            made.add_files(
                files[:4], attributes={"price": [0, 1, None, 3], "tags": [["b", "a"], [], None, ["a"]]}
            ).added
            == 4
        )
        again = made.add_files(files[2:], attributes={"price": np.array([2, 3, 4, 5])})
        assert (again.added, again.known, again.updated) == (2, 2, 1)
        ((hit, *others),) = made.search(files[2:3], k=9, where=attribute("price") > 1, cutoff=None)
        assert hit.attributes == {"price": 2.0, "tags": None}
        assert sorted(one.attributes["price"] for one in others) == [3, 4, 5]
        assert len({hit, *others}) == 4
        ((only,),) = made.search(files[:1], k=9, where="price < 3", among=[0, 5])
        assert (only.id, only.attributes["tags"]) == (0, ("a", "b"))
        for wrong, message in (
            ({"cost": [1, 2]}, "has the attribute 'cost'"), ({"price": [1]}, "has 1 values, expected one for"),
            ({"price": ["x", 1]}, "attribute price of row 0 is 'x'"), ("price", "attributes are a str"),
        ):  # fmt: skip
            with pytest.raises(InvalidEncodingsError, match=message):
                made.add_files(files[:2], attributes=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="expected one of bool, int"):
        Connector.create(place / "other", model.path, attributes={"price": "number"})  # type: ignore[dict-item]
    assert not (place / "other").exists()


def test_an_unfinished_index_is_gone_on_with_by_the_same_attributes_only(place: Path, model: Checkpoint):
    Connector.create(place / "index", model.path, roots=[place / "photos"], attributes={"price": "float"}).close()
    name = written(place)
    wrong = semcut("index", name, "--model", model.path, "--out", "index", *ASKED, cwd=place, status=1)
    assert "index is unfinished, and has other attributes: price=float; give the same ones" in wrong.stderr
    semcut("index", name, "--model", model.path, "--out", "index", "--attribute=price=float", cwd=place)
    assert {key: one["price"] for key, one in of_records(place).items()} == {"0": 0.0, "1": 0.5, "2": 1.0, "3": None}
