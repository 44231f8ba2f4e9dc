"""Requests with filters: what they answer, what the limits refuse, and what JSON has of attributes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.service import ExploreService
from semcut.connector.models.checkpoint import Checkpoint
from tests.connector.explore.conftest import client_of

TYPES: dict[str, Any] = {
    "price": "float", "size": "int", "sold": "bool", "taken": "datetime", "camera": "category", "tags": "categories",
}  # fmt: skip
NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def filtered(model: Checkpoint, digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    place: Path = tmp_path_factory.mktemp("filtered") / "index"
    with Connector.create(place, model.path, attributes=TYPES) as made:
        values: dict[str, list[Any]] = {name: [None] * 12 for name in TYPES}
        values["price"] = [number / 2 for number in range(12)]
        values |= {"size": [2**53 + 1, 3, *[None] * 10], "taken": [NOON] * 12, "tags": [["b", "a"], [], *[None] * 10]}
        made.add_files(digits.files[:12], attributes=values)
        with client_of(ExploreService(made.index, digits.classes, made.encoder.encode_read)) as client:
            yield client


def search(client: TestClient, status: int = 200, **request: Any) -> Any:
    answer = client.post("/search", json={"id": 0, "no_cutoff": True, **request})
    assert answer.status_code == status, answer.text
    return answer.json()


def found(answer: Any) -> list[int]:
    return sorted(int(hit["record"]["id"]) for hit in answer["hits"])


def test_the_types_of_attributes_are_listed(filtered: TestClient, client: TestClient) -> None:
    assert filtered.get("/stats").json()["attributes"] == TYPES
    assert client.get("/stats").json()["attributes"] == {}


def test_only_records_that_match_are_found_and_shown_with_their_attributes(filtered: TestClient) -> None:
    answer = search(filtered, where="price < 2 or size is not null", compare=True)
    assert found(answer) == [0, 1, 2, 3]
    assert answer["compared"]["same"] is True
    assert found(search(filtered, where='array_contains(tags, "a")')) == [0]
    records = {int(hit["record"]["id"]): hit["record"]["attributes"] for hit in answer["hits"]}
    plain = {"price": 0.0, "sold": None, "taken": "2024-05-01T12:00:00+00:00", "camera": None}
    assert records[0] == {**plain, "size": "9007199254740993", "tags": ["a", "b"]}
    assert records[1] == {**plain, "price": 0.5, "size": 3, "tags": []}
    assert answer["query"]["attributes"] == records[0]
    assert filtered.get("/records/1").json()["attributes"] == records[1]
    assert found(search(filtered, where="price > 100")) == []


@pytest.mark.parametrize(
    ("where", "status", "message"),
    [
        ("price <", 400, "where, at character 8: expected a number"),
        ("cost < 1", 400, "cost"),
        ("camera < 1", 400, "compare it with =="),
        (" or ".join(["price < 1"] * 101), 400, "where has 101 comparisons, expected at most 100"),
        ("(" * 60 + "price < 1" + ")" * 60, 400, "more than 50 deep"),
        ("price < 1" + " " * 10_000, 422, "where: expected at most 10000 characters"),
        (3, 422, "where"),
    ],
)
def test_a_filter_that_is_none_is_one_sentence(filtered: TestClient, where: Any, status: int, message: str) -> None:
    error = search(filtered, status, where=where)["error"]
    assert message in error
    assert "\n" not in error
    assert len(error) < 700


def test_a_filter_of_the_largest_size_is_answered(filtered: TestClient) -> None:
    assert found(search(filtered, where=" or ".join(["price < 1"] * 100))) == [0, 1]
    many = ", ".join(["0.5"] * 90)
    assert found(search(filtered, where=f"price in [{many}]")) == [1]


def test_an_index_without_attributes_refuses_every_filter(client: TestClient) -> None:
    first = client.get("/records?count=1").json()["records"][0]["id"]
    answer = client.post("/search", json={"id": int(first), "where": "price < 1"})
    assert answer.status_code == 400
    assert "price" in answer.json()["error"]
