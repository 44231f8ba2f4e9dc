"""Records of an index whose ids are strings: every answer has the strings, and a request may name a record by one."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from semcut import FaissIndex, IndexConfig
from semcut.connector.explore.service import ExploreService
from tests.connector.explore.conftest import client_of
from tests.indexes.generate import classified

CONFIG = IndexConfig(classes=4, bits=32, dim=16, string_ids=True)
KEYS = [
    "a/b/../c.jpg", "%2F", "100%", "a b+c&key=d#e", "?x", "7", " ", "\u00e9\U0001f600", "a\nb", "\x1b[31m", "</script>",
    "x" * 1000, "\\", '"', ".", "..",
]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaissIndex]:
    place: Path = tmp_path_factory.mktemp("keyed")
    Image.new("RGB", (40, 30), (200, 10, 10)).save(place / "red.png")
    batch = classified(np.random.default_rng(0), CONFIG, len(KEYS))
    with FaissIndex.create(place / "index", CONFIG) as made:
        made.add(replace(batch, ids=KEYS, uris=[str(place / "red.png")] * len(KEYS)))
        yield made


@pytest.fixture(scope="module")
def keyed(index: FaissIndex) -> Iterator[TestClient]:
    def encode(read: Any) -> Any:
        read(32)
        return replace(index.get([KEYS[0]]), ids=None, keys=None, uris=None)

    with client_of(ExploreService(index, None, encode)) as client:
        yield client


def test_the_summary_says_whether_ids_are_strings(keyed, client):
    assert keyed.get("/stats").json()["keys"] is True
    assert client.get("/stats").json()["keys"] is False


@pytest.mark.parametrize("key", KEYS)
def test_a_record_is_named_by_its_key(key, keyed, index):
    (number,) = index.get([key]).ids.tolist()
    found = keyed.get("/record", params={"key": key}).json()
    assert (found["id"], found["key"]) == (str(number), key)
    assert keyed.get(f"/record?key={quote(key, safe='')}").json() == found
    assert keyed.get(f"/records/{number}").json() == found
    small = keyed.get("/record/thumbnail", params={"key": key, "size": 20})
    assert Image.open(io.BytesIO(small.content)).width == 20
    assert small.content == keyed.get(f"/records/{number}/thumbnail?size=20").content
    answer = keyed.post("/search", json={"key": key, "k": 5, "explain": True, "compare": True}).json()
    assert (answer["query"]["id"], answer["query"]["key"]) == (str(number), key)
    expected = index.search(index.get([key]), k=5)
    assert [hit["record"]["key"] for hit in answer["hits"]] == expected.keys[0].tolist()
    assert [hit["record"]["id"] for hit in answer["hits"]] == list(map(str, expected.ids[0].tolist()))
    del answer["done"]["milliseconds"], answer["compared"]["milliseconds"]
    same = keyed.post("/search", json={"id": number, "k": 5, "explain": True, "compare": True}).json()
    del same["done"]["milliseconds"], same["compared"]["milliseconds"]
    assert same == answer
    alone = keyed.post("/search", json={"key": key, "k": 5, "exclude_self": True}).json()
    assert key not in [hit["record"]["key"] for hit in alone["hits"]]


def test_lists_of_records_have_keys(keyed, index):
    drawn = keyed.get("/records?count=200").json()["records"]
    for partition in keyed.get("/partitions").json()["partitions"]:
        drawn += keyed.get(f"/partitions/{partition['partition']}").json()["records"]
    assert {one["key"] for one in drawn} == {*KEYS}
    assert all(index.keys([int(one["id"])]) == [one["key"]] for one in drawn)


def test_an_image_has_no_key(keyed):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    answer = keyed.post("/search", json={"image": base64.b64encode(content.getvalue()).decode()}).json()
    assert answer["query"]["key"] is answer["query"]["id"] is None
    assert answer["hits"][0]["record"]["key"] in KEYS


def test_records_of_an_index_with_integers_have_no_key(client):
    assert client.get("/records/5").json()["key"] is None
    answer = client.post("/search", json={"id": 5}).json()
    assert answer["query"]["key"] is answer["hits"][0]["record"]["key"] is None


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"key": "8"}, 404, "1 ids ('8') are not in the index"),
    ({"key": ""}, 422, "key"),
    ({"key": "x" * 1001}, 422, "key"),
    ({"key": "a\0b"}, 422, "key"),
    ({"key": 7}, 422, "key"),
    ({"key": ["7"]}, 422, "key"),
    ({"key": "7", "id": 7}, 422, "give an id, a key or an image, one of them"),
    ({"key": "7", "image": "aGk="}, 422, "give an id, a key or an image, one of them"),
    ({"id": "a/b"}, 422, "id"),
    ({"id": 7}, 404, "id 7 is not in the index"),
]


@pytest.mark.parametrize(("body", "status", "message"), WRONG)
def test_a_key_that_is_wrong_is_one_sentence(body, status, message, keyed):
    answer = keyed.post("/search", json=body)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    key = body.get("key")
    if len(body) == 1 and isinstance(key, str):
        for path in ("/record", "/record/thumbnail"):
            assert keyed.get(path, params={"key": key}).status_code == status


def test_half_surrogates_and_bytes_that_are_not_utf8_are_refused(keyed):
    answer = keyed.post("/search", content=b'{"key": "\\ud800"}', headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert keyed.get("/record?key=%ff%ed%a0%80").status_code == 404
    assert keyed.get("/record").status_code == 422


def test_a_key_for_an_index_with_integers_is_one_sentence(client):
    for answer in (
        client.post("/search", json={"key": "7"}),
        client.get("/record?key=7"),
        client.get("/record/thumbnail?key=7"),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"error": "there is no record '7': the ids of this index are integers"}


def test_a_key_is_never_markup_in_an_answer(keyed):
    answer = keyed.get("/record", params={"key": "</script>"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.content)["key"] == "</script>"
