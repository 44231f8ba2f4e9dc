"""Test the HTTP API: responses agree with the index, errors are sentences, and no request stops the server."""

from __future__ import annotations

import base64
import io
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from semcut.connector.explore import exhaustive, http_api
from semcut.connector.explore import service as service_module
from semcut.connector.explore.service import ExploreService
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.errors import DataError
from tests.connector.explore.conftest import client_of


def image_in_base64(file: str) -> str:
    return base64.b64encode(Path(file).read_bytes()).decode()


def picture(answer: httpx2.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    return image


def test_health_and_stats_describe_the_index(client, connector, digits):
    assert client.get("/health").json() == {"status": "ok"}
    stats = client.get("/stats").json()
    assert stats["records"] == len(digits)
    assert stats["classes"] == list(digits.classes)
    assert (stats["bits"], stats["dim"], stats["images"], stats["comparable"]) == (64, 32, True, True)
    assert stats["partitions"] == np.count_nonzero(connector.index.stats().partitions)


@pytest.mark.parametrize("ranking", ["distance", "fused", "relevance"])
@pytest.mark.parametrize(("shortlist", "cutoff", "fill"), [(None, 0.3, False), (20, 0.3, True), (20, None, True)])
def test_a_search_by_record_agrees_with_the_index(ranking, shortlist, cutoff, fill, client, connector):
    for one in (0, 700, 1441):
        settings = {"k": 7, "cutoff": cutoff, "shortlist": shortlist, "ranking": ranking, "fill": fill}
        answer = client.post("/search", json={"id": one, "no_cutoff": cutoff is None, **settings}).json()
        result = connector.index.search(connector.index.get([one]), **settings)
        found = result.ids[0][result.ids[0] >= 0]
        assert [hit["record"]["id"] for hit in answer["hits"]] == list(map(str, found))
        for field, values in (
            ("distance", result.distances), ("relevance", result.relevance), ("score", result.scores),
            ("hamming", result.hamming), ("filled", result.filled),
        ):  # fmt: skip
            assert [hit[field] for hit in answer["hits"]] == pytest.approx(values[0][: len(found)].tolist())
        records = connector.index.get(found)
        partitions = [hit["record"]["classes"][0]["partition"] for hit in answer["hits"]]
        assert partitions == records.probabilities.argmax(axis=1).tolist()
        assert [hit["record"]["uri"] for hit in answer["hits"]] == list(records.uris)
        done = answer["done"]
        assert (done["codes"], done["cells"]) == (result.codes[0], result.cells[0])
        assert done["records"] == len(connector.index)
        assert answer["query"]["id"] == str(one)
        assert answer["partitions"] is answer["compared"] is None


def test_a_search_by_image_agrees_with_the_index(client, connector, digits_test):
    for file in digits_test.files[:3]:
        answer = client.post("/search", json={"image": image_in_base64(file), "k": 5}).json()
        assert [int(hit["record"]["id"]) for hit in answer["hits"]] == [
            hit.id for hit in connector.search([file], k=5)[0]
        ]
        assert answer["query"]["id"] is None
        assert sum(one["probability"] for one in answer["query"]["classes"]) <= 1.0001


def test_explain_returns_what_pruning_left_of_each_partition(client, connector, digits):
    answer = client.post("/search", json={"id": 3, "cutoff": 0.4, "explain": True}).json()
    query = connector.index.get([3])
    expected, sizes = connector.index.explain(query, cutoff=0.4), connector.index.stats().partitions
    shown = {one["partition"]: one for one in answer["partitions"]}
    assert set(shown) == set(np.flatnonzero(sizes).tolist())
    for partition, one in shown.items():
        assert one["bound"] == pytest.approx(expected.bounds[0, partition])
        assert one["kept_records"] == expected.kept_codes[0, partition]
        assert (one["records"], one["name"]) == (sizes[partition], digits.classes[partition])
    bounds = [one["bound"] for one in answer["partitions"]]
    assert bounds == sorted(bounds, reverse=True)
    wide = client.post("/search", json={"id": 3, "cutoff": 0.0, "explain": True}).json()
    assert wide["done"]["codes"] > answer["done"]["codes"]


@pytest.mark.parametrize("ranking", ["distance", "fused", "relevance"])
@pytest.mark.parametrize("cutoff", [0.2, 0.99, None])
def test_compare_agrees_with_a_search_without_a_shortlist(ranking, cutoff, client, monkeypatch):
    monkeypatch.setattr(exhaustive, "BATCH_VALUES", 100)
    whole = {"k": 20, "cutoff": cutoff, "no_cutoff": cutoff is None, "shortlist": None, "ranking": ranking}
    whole["compare"] = True
    for one in range(0, 1400, 200):
        answer = client.post("/search", json={"id": one, **whole}).json()
        compared = answer["compared"]
        assert compared["same"]
        assert compared["missing"] == []
        assert compared["hits"] == answer["hits"]


def test_a_search_leaves_the_record_out_and_makes_results_differ(client, connector):
    for one in (0, 1441):
        record = connector.index.get([one])
        for settings in ({"exclude_self": True}, {"diversity": 0.5}, {"exclude_self": True, "diversity": 0.9}):
            answer = client.post("/search", json={"id": one, "k": 6, **settings}).json()
            expected = connector.index.search(record, k=6, **settings)
            assert [hit["record"]["id"] for hit in answer["hits"]] == list(map(str, expected.ids[0].tolist()))
        whole = {"id": one, "k": 6, "shortlist": None, "exclude_self": True, "compare": True}
        compared = client.post("/search", json=whole).json()["compared"]
        assert compared["same"]
        assert str(one) not in [hit["record"]["id"] for hit in compared["hits"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": 0, "diversity": 0.5, "compare": True}, "compare is for the best records: give it without diversity"),
        ({"id": 0, "diversity": 1}, "diversity"),
        ({"image": "aGk=", "exclude_self": True}, "exclude_self is for a record: give an id"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message, client):
    answer = client.post("/search", json=settings)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


def test_compare_names_the_records_that_a_shortlist_missed(client):
    differing = 0
    for one in range(0, 1400, 100):
        answer = client.post("/search", json={"id": one, "k": 10, "shortlist": 10, "compare": True}).json()
        found = [hit["record"]["id"] for hit in answer["hits"]]
        best = [hit["record"]["id"] for hit in answer["compared"]["hits"]]
        assert answer["compared"]["missing"] == [one for one in best if one not in found]
        assert answer["compared"]["same"] == (found == best)
        differing += found != best
    assert differing


def test_comparing_too_much_is_refused_and_announced(service, monkeypatch):
    monkeypatch.setattr(exhaustive, "MAX_VALUES", 1000)
    client = client_of(service)
    assert not client.get("/stats").json()["comparable"]
    answer = client.post("/search", json={"id": 1, "compare": True})
    assert answer.status_code == 400
    assert "comparing with every one of 1,442 records would take too long" in answer.json()["error"]
    assert client.post("/search", json={"id": 1}).status_code == 200


def test_records_partitions_and_random_samples(client, connector, digits):
    record = client.get("/records/5").json()
    assert (record["id"], record["uri"]) == ("5", digits.files[5])
    probabilities = connector.index.get([5]).probabilities[0]
    assert [one["probability"] for one in record["classes"]] == pytest.approx(np.sort(probabilities)[::-1][:3].tolist())
    listed = client.get("/partitions", params={"limit": 3, "samples": 4}).json()
    sizes = connector.index.stats().partitions
    assert listed["total"] == np.count_nonzero(sizes)
    assert [one["records"] for one in listed["partitions"]] == sorted(sizes, reverse=True)[:3]
    rest = client.get("/partitions", params={"limit": 200, "offset": 3}).json()["partitions"]
    assert sum(one["records"] for one in [*listed["partitions"], *rest]) == len(digits)
    for one in listed["partitions"]:
        members = connector.index.get(list(map(int, one["sample"])))
        assert len(members) == 4
        assert set(members.probabilities.argmax(axis=1)) == {one["partition"]}
        assert 0.3 < one["confidence"] <= 1
    unsure = client.get(f"/partitions/{one['partition']}", params={"ambiguous": True, "limit": 10}).json()["records"]
    surest = [record["classes"][0]["probability"] for record in unsure]
    assert surest == sorted(surest)
    assert np.mean(surest) < one["confidence"]
    drawn = [client.get("/records", params={"count": 30, "seed": seed}).json()["records"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({record["id"] for record in drawn[0]}) > 20


def test_thumbnails_are_pictures_of_the_record(client, digits):
    small = picture(client.get("/records/7/thumbnail"))
    with Image.open(digits.files[7]) as original:
        assert small.size == original.size
        assert np.array_equal(np.asarray(small), np.asarray(original.convert("RGB")))


def index_of(uris: list[str | None]) -> FaissIndex:
    index = FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2))
    count = len(uris)
    encodings = Encodings(
        probabilities=np.full((count, 2), 0.5, np.float32), codes=np.zeros((count, 4), np.uint8),
        features=np.full((count, 2), 0.5, np.float32), ids=np.arange(count), uris=uris,
    )  # fmt: skip
    index.add(encodings)
    return index


def test_large_images_are_shrunk_and_other_files_become_placeholders(tmp_path):
    Image.new("RGB", (900, 300), (200, 10, 10)).save(tmp_path / "large.png")
    Image.new("RGB", (2000, 1), (200, 10, 10)).save(tmp_path / "thin.png")
    (tmp_path / "text.jpg").write_text("no image")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    (tmp_path / "secret").write_text("password")
    names = ("large.png", "thin.png", "text.jpg", "pipe.png", "bomb.png", "none.png", "secret", "")
    uris = [*(str(tmp_path / name) for name in names), "\0", "https://elsewhere/x.png", None]
    client = client_of(ExploreService(index_of(uris), None, None))
    assert picture(client.get("/records/0/thumbnail?size=90")).size == (90, 30)
    assert picture(client.get("/records/1/thumbnail?size=100")).size == (100, 1)
    for record in range(2, 11):
        answer = client.get(f"/records/{record}/thumbnail?size=100")
        assert picture(answer).size == (100, 100)
        assert b"password" not in answer.content
        assert answer.headers["cache-control"] == "no-store"


def test_uris_below_the_root_are_shown_as_paths_and_no_other_leads_there(tmp_path):
    root = tmp_path / "photos"
    (root / "a").mkdir(parents=True)
    for file in (root / "a" / "x.png", tmp_path / "outside.png"):
        Image.new("RGB", (60, 30), (200, 10, 10)).save(file)
    uris = ["a/x.png", "../outside.png", "a/../../outside.png", "./a/x.png", "a//x.png"]
    client = client_of(ExploreService(index_of(uris), None, None, root=str(root)))
    assert client.get("/records/0").json()["uri"] == str(root / "a" / "x.png")
    assert picture(client.get("/records/0/thumbnail?size=60")).size == (60, 30)
    answer = client.post("/search", json={"id": "0", "k": 5}).json()
    assert answer["query"]["uri"] == str(root / "a" / "x.png")
    for record in range(1, 5):
        assert client.get(f"/records/{record}").json()["uri"] == uris[record]
        assert picture(client.get(f"/records/{record}/thumbnail?size=60")).size == (60, 60)


def test_an_index_without_a_network_is_only_searched_by_record(connector):
    client = client_of(ExploreService(connector.index, None, None))
    stats = client.get("/stats").json()
    assert not stats["images"]
    assert stats["classes"][3] == "class 3"
    answer = client.post("/search", json={"image": base64.b64encode(b"x").decode()})
    assert (answer.status_code, answer.json()["error"]) == (
        400, "the network of this index is not here, so it cannot be searched with images: give an id",
    )  # fmt: skip
    assert client.post("/search", json={"id": 1}).status_code == 200


def test_an_empty_index_is_served():
    client = client_of(
        ExploreService(FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2)), ["a", "b"], None)
    )
    assert client.get("/stats").json()["records"] == 0
    assert client.get("/records").json() == {"records": []}
    assert client.get("/partitions").json() == {"total": 0, "partitions": []}
    assert client.get("/partitions/1").json()["records"] == []
    assert client.post("/search", json={"id": 0}).status_code == 404


def test_large_ids_are_exact():
    index = FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2))
    index.add(
        Encodings(
            probabilities=np.array([[1, 0]], np.float32),
            codes=np.zeros((1, 4), np.uint8),
            features=np.array([[1, 0]], np.float32),
            ids=np.array([2**63 - 1]),
        )
    )
    client, large = client_of(ExploreService(index, None, None)), str(2**63 - 1)
    for one in (large, int(large)):
        answer = client.post("/search", json={"id": one, "compare": True}).json()
        assert [hit["record"]["id"] for hit in answer["hits"]] == [large]
        assert answer["compared"]["same"]
    assert client.get(f"/records/{large}").json()["id"] == large
    assert client.get("/records").json()["records"][0]["id"] == large


def test_a_change_of_the_writer_is_visible(writer_and_reader, digits):
    writer, reader = writer_and_reader
    client = client_of(ExploreService(reader, digits.classes, None))
    before = client.get("/stats").json()
    assert client.get("/records/25").status_code == 404
    writer.add_files(digits.files[20:30])
    assert client.get("/records/25").json()["uri"] == digits.files[25]
    after = client.get("/stats").json()
    assert (before["records"], after["records"]) == (20, 30)
    assert before["version"] != after["version"]
    writer.index.remove([25])
    assert client.post("/search", json={"id": 25}).status_code == 404
    writer.index.compact()
    assert client.get("/stats").json()["removed"] == 0


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({}, 422, "give an id, a key or an image, one of them"),
        ({"id": 1, "image": "aaaa"}, 422, "give an id, a key or an image, one of them"),
        ({"id": -1}, 422, "id: expected greater than or equal to 0, got -1"),
        ({"id": 2**63}, 422, "id: expected less than or equal to"),
        ({"id": "../../etc/passwd"}, 422, "id: expected a valid integer"),
        ({"id": 1.5}, 422, "id: "),
        ({"id": [1]}, 422, "id: "),
        ({"id": 999_999}, 404, "id 999999 is not in the index"),
        ({"id": 1, "k": 0}, 422, "k: expected greater than or equal to 1, got 0"),
        ({"id": 1, "k": 10**9}, 422, "k: expected less than or equal to 500"),
        ({"id": 1, "cutoff": 1}, 422, "cutoff: expected less than 1, got 1"),
        ({"id": 1, "cutoff": "NaN"}, 422, "cutoff: expected"),
        ({"id": 1, "cutoff": 0.2, "no_cutoff": True}, 422, "give a cutoff or no_cutoff, not both"),
        ({"id": 1, "k": 20, "shortlist": 10}, 422, "a shortlist of 10 cannot give k = 20 records"),
        ({"id": 1, "ranking": "best"}, 422, "ranking: expected 'distance', 'fused' or 'relevance', got 'best'"),
        ({"id": 1, "colour": "red"}, 422, "colour: there is no such setting"),
        ({"image": "@@@"}, 400, "not an image (expected one of JPEG, PNG"),
        ({"image": base64.b64encode(b"no image").decode()}, 400, "not an image (expected one of JPEG, PNG"),
        ([], 422, "expected an object"),
        ("text", 422, "expected an object"),
        (None, 415, "send JSON"),
    ],
)  # fmt: skip
def test_an_invalid_request_is_answered_with_the_reason(content, status, reason, client):
    answer = client.post("/search", json=content)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert reason in answer.json()["error"]
    assert len(answer.text) < 600


def test_invalid_json_is_answered_with_an_error(client):
    for body in (b"{", b"\xff\xfe", b'{"id": 1', b"[" * 100_000):
        answer = client.post("/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
        assert list(answer.json()) == ["error"]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


UNDECODABLE = {
    "cut off": lambda: png(Image.effect_noise((200, 200), 50))[:3000],
    "bomb": lambda: png(Image.new("1", (20_000, 20_000))),
    "empty": lambda: b"",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0",
}
"""Functions that create files that cannot or must not be decoded."""


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_broken_and_huge_images_are_refused(kind, client):
    content = UNDECODABLE[kind]()
    start = time.perf_counter()
    answer = client.post("/search", json={"image": base64.b64encode(content).decode()})
    assert answer.status_code == 400, answer.text
    assert "the file that was sent cannot be searched with" in answer.json()["error"]
    assert time.perf_counter() - start < 5
    assert client.get("/health").status_code == 200


def test_a_body_that_is_too_large_is_refused(client):
    large = b'{"image": "' + b"A" * (30 << 20) + b'"}'
    answer = client.post("/search", content=large, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, "the request is too large: at most 21 MiB are read")
    answer = client.post("/search", content=iter([b"{", b"}"]), headers={"content-type": "application/json"})
    expected = (411, "a body must state its size: send it whole, with a Content-Length")
    assert (answer.status_code, answer.json()["error"], answer.headers["connection"]) == (*expected, "close")
    answer = client.request("GET", "/stats", content=b"{}")
    assert (answer.status_code, answer.json()["error"]) == (400, "a GET request has no body here: send none")
    answer = client.post("/search", content=b"{}", headers={"content-length": "many"})
    assert answer.status_code in (400, 415)
    assert len(client.post("/search", json={"id": 1, "x" * 50_000: 1}).text) < 600


MANY = 1 << 20


@pytest.mark.parametrize("content", [
    b"{" + b'"a": 1, ' * MANY + b'"b": 1}', b'{"id": [' + b"[]," * MANY + b"[]]}", b'{"id": ' + b"[" * MANY,
    b'{"a": ' * MANY, b"[" + b"1," * MANY + b"1]", b'{"id": 1' + b":" * MANY,
])  # fmt: skip
def test_many_values_are_refused_before_they_are_parsed(content, client, monkeypatch):
    monkeypatch.setattr(http_api, "_parse_search", lambda body: pytest.fail("this must not be parsed"))
    answer = client.post("/search", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (422, "the request has too many fields or values")


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e%2fapp.py",
        "/page/..%5capp.py",
        "/page//etc/passwd",
        "/page/%00",
        "/records/../../x",
        "/records/1/thumbnail/../../../etc/passwd",
        "/records/%2e%2e",
        "/records/1%2f..%2f2/thumbnail",
        "/nothing",
    ],
)
def test_no_path_reaches_the_file_system(path, client):
    answer = client.get(path)
    assert answer.status_code in (404, 422), answer.text
    assert list(answer.json()) == ["error"]


def test_an_unknown_host_name_is_refused(client):
    for host in ("elsewhere.example", "localhost.elsewhere.example", "127.0.0.1.example:8765", ""):
        answer = client.get("/stats", headers={"host": host})
        assert answer.status_code == 400
        assert "this server is not known by that name" in answer.json()["error"]
    for host in ("localhost:8765", "127.0.0.1", "[::1]:80", "[::1]", "LOCALHOST", "192.168.1.5:8765"):
        assert client.get("/stats", headers={"host": host}).status_code == 200


def test_requests_of_other_sites_are_refused(client):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.get("/records/1/thumbnail", headers={"sec-fetch-site": site}).status_code == status
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a user follows a link
    assert client.get("/stats").headers["cross-origin-resource-policy"] == "same-origin"
    form = {"content-type": "text/plain"}
    assert client.post("/search", content=b'{"id": 1}', headers=form).status_code == 415


def test_a_server_with_a_token_requires_it(service):
    client = client_of(service, token="open+sesame", hosts=["localhost"])
    assert client.get("/health").status_code == 200
    for path in ("/stats", "/", "/page/explore.js", "/docs", "/openapi.json", "/records/1/thumbnail"):
        assert client.get(path).status_code == 401
    for header in ("Bearer wrong", "Basic open+sesame", "Bearer", "open+sesame", "Bearer пароль".encode()):
        assert client.get("/stats", headers={"authorization": header}).status_code == 401
    assert client.get("/stats", headers={"authorization": "Bearer open+sesame"}).status_code == 200
    assert client.get("/?token=wrong", follow_redirects=False).status_code == 401
    assert client.get("/?token=%ff%00", follow_redirects=False).status_code == 401
    assert client.get("/stats", headers={"cookie": "semcut=" + "\\" * 60_000}).status_code == 401
    answer = client.get("/?token=open%2Bsesame", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
    cookie = answer.headers["set-cookie"].split(";")[0]
    assert "sesame" not in cookie
    client.cookies.clear()
    for other in ("", '{"a": 1}; ', "x; y=[ä]; "):  # cookies of other servers on this machine
        headers = {"cookie": f"{other}{cookie}".encode("latin-1")}
        assert client.get("/stats", headers=headers).status_code == 200
    assert client_of(service, token="another").get("/stats", headers={"cookie": cookie}).status_code == 401


def test_nothing_is_loaded_from_other_servers(client):
    for path in ("/", "/stats", "/docs", "/nothing", "/records/1/thumbnail"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "://" not in policy
        assert ("unsafe-inline" in policy) == (path == "/docs")
    for path in ("/", "/docs", "/redoc", "/page/explore.js", "/page/explore.css"):
        assert not set(_addresses(client.get(path).text)), path


def _addresses(text: str) -> list[str]:
    """Return the addresses from which a browser would load from other hosts."""
    return re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+|(?:fetch|import)\(["']https?://|url\(https?://""", text)


def test_a_request_that_takes_too_long_is_answered_with_an_error(connector, digits, monkeypatch):
    service, end = ExploreService(connector.index, digits.classes, None), threading.Event()
    monkeypatch.setattr(service, "stats", lambda: end.wait(60))
    client = client_of(service, seconds=0.1)
    try:
        answer = client.get("/stats")
        assert (answer.status_code, answer.json()["error"]) == (503, "this took longer than 0.1 seconds")
        assert client.get("/health").status_code == 200
    finally:
        end.set()


def test_abandoned_comparisons_stop_and_never_run_at_the_same_time(connector, digits, monkeypatch):
    monkeypatch.setattr(exhaustive, "BATCH_VALUES", 10)
    running, most, ended = [], [0], []

    def slow(*arguments: object, stop: Callable[[], bool], **settings: object) -> None:
        running.append(1)
        most[0] = max(most[0], len(running))
        while not stop():
            time.sleep(0.005)
        running.pop()
        ended.append(1)
        raise DataError("stopped")

    monkeypatch.setattr(service_module, "search_exhaustively", slow)
    client = client_of(ExploreService(connector.index, digits.classes, None), seconds=0.1)
    for _ in range(8):
        assert client.post("/search", json={"id": 1, "compare": True}).status_code == 503
    assert client.get("/health").status_code == 200
    for _ in range(1000):
        if not running:
            break
        time.sleep(0.01)
    assert (most[0], len(running)) == (1, 0)
    assert ended


def test_a_response_describes_one_version_while_a_writer_changes_the_index(writer_and_reader, digits):
    writer, reader = writer_and_reader
    client, end = client_of(ExploreService(reader, digits.classes, None)), threading.Event()

    def change() -> None:
        while not end.is_set():
            writer.index.remove(range(10, 20))
            writer.index.compact()
            writer.index.add(records)

    records = writer.index.get(range(10, 20))
    with ThreadPoolExecutor(5) as pool:
        changing = pool.submit(change)

        def search(one: int) -> None:
            settings = {"id": one % 10, "k": 20, "cutoff": 0, "shortlist": None, "compare": True, "explain": True}
            answer = client.post("/search", json=settings)
            if answer.status_code == 503:
                assert "changes faster than it can be read" in answer.json()["error"]
                return
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["compared"]["same"]
            assert len(found["hits"]) == found["done"]["records"] == sum(one["records"] for one in found["partitions"])
            answered.append(one)

        answered: list[int] = []
        try:
            list(pool.map(search, range(60)))
        finally:
            end.set()
        changing.result()
    assert answered


def test_an_image_is_encoded_once_for_several_searches(connector, digits, digits_test):
    encoded = []

    def encode(read):
        encoded.append(1)
        return connector.encoder.encode_read(read)

    client = client_of(ExploreService(connector.index, digits.classes, encode))
    for cutoff in (0.1, 0.2, 0.3):
        client.post("/search", json={"image": image_in_base64(digits_test.files[0]), "cutoff": cutoff})
    assert encoded == [1]
    for file in digits_test.files[:20]:
        client.post("/search", json={"image": image_in_base64(file)})
    assert len(encoded) == 20
    client.post("/search", json={"image": image_in_base64(digits_test.files[0])})
    assert len(encoded) == 21  # its encodings were dropped


def test_an_unexpected_error_reveals_nothing(connector, digits, monkeypatch):
    service = ExploreService(connector.index, digits.classes, None)

    def broken() -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(service, "stats", broken)
    answer = client_of(service).get("/stats")
    assert (answer.status_code, list(answer.json())) == (500, ["error"])
    assert "secret" not in answer.text


def test_damage_is_reported_and_the_server_keeps_running(writer_and_reader, digits):
    writer, reader = writer_and_reader
    client = client_of(ExploreService(reader, digits.classes, None))
    writer.close()
    (file,) = reader._store.path.glob("**/features*")
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    answer = client.post("/search", json={"id": 1})
    assert answer.status_code == 503
    assert "features" in answer.json()["error"]
    assert client.get("/health").status_code == 200
    reader.close()
    for path in ("/stats", "/health"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "the index was closed" in answer.json()["error"]


def test_a_hundred_clients_get_the_results_of_one(serve, service, connector):
    address = serve(service)

    def search(one: int) -> list[int]:
        with httpx2.Client(base_url=address, timeout=60) as client:
            answer = client.post("/search", json={"id": one, "k": 5, "explain": True})
        assert answer.status_code == 200, answer.text
        return [int(hit["record"]["id"]) for hit in answer.json()["hits"]]

    wanted = list(range(0, 1400, 14))
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(search, wanted))
    expected = connector.index.search(connector.index.get(wanted), k=5)
    assert found == [row[row >= 0].tolist() for row in expected.ids]
    assert httpx2.get(f"{address}/health").status_code == 200


def test_the_page_and_the_documentation_are_served(client):
    assert "<title>" in client.get("/").text
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {path.split("/")[1] for path in paths} == {"health", "stats", "search", "records", "record", "partitions"}
    assert http_api.PAGE.joinpath("explore.js").is_file()
