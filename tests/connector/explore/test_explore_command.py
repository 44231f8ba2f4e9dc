"""Test `semcut explore` in its own process that listens on loopback, as a user runs it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest

from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.open_index import open_stored
from semcut.connector.explore.service import ExploreService
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import SemanticHashNet
from semcut.connector.retrieval.model_link import LINK
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import FaissIndex
from semcut.indexes.errors import CheckpointError
from semcut.indexes.milvus import MilvusIndex
from tests.command import SEMCUT, semcut
from tests.connector.explore.conftest import client_of


@contextmanager
def running(*arguments: object, cwd: Path, **environment: str) -> Iterator[str]:
    """Run a server and yield its address; at the end it is interrupted and must exit cleanly."""
    process = subprocess.Popen(
        [str(SEMCUT), "explore", *map(str, arguments), "--port", "0", "--no-browser"],
        cwd=cwd, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    lines = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"records at (http://\S+) ", line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            rest = process.communicate(timeout=30)[1]
        finally:
            process.kill()  # has no effect if the process has ended
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_stored_index_and_its_network_are_served(stored: Path, digits: ImageSet) -> None:
    with running(stored, cwd=stored.parent) as address, httpx2.Client(base_url=address, timeout=60) as client:
        stats = client.get("/stats").json()
        assert (stats["records"], stats["images"], stats["classes"]) == (len(digits), True, list(digits.classes))
        image = base64.b64encode(Path(digits.files[9]).read_bytes()).decode()
        hits = client.post("/search", json={"image": image, "k": 1}).json()["hits"]
        assert hits[0]["record"]["uri"] == digits.files[9]
        assert client.get("/").status_code == 200


def test_an_index_without_its_network_is_searched_by_record(stored: Path, model: Checkpoint, tmp_path: Path) -> None:
    other = tmp_path / "other"
    architecture = model.net.architecture
    Checkpoint.save(other, architecture, SemanticHashNet(architecture).state_dict(), {})
    for place, reason in ((tmp_path / "nowhere", "no network in"), (other, "did not make this index")):
        moved = shutil.copytree(stored, tmp_path / f"made by {place.name}")
        link = json.loads((moved / LINK).read_text())
        (moved / LINK).write_text(json.dumps({**link, "model": str(place), "beside": "missing"}))
        stats, warnings = stats_of(moved, None)
        assert not stats["images"]
        assert [reason in warning for warning in warnings] == [True]
        with pytest.raises(CheckpointError, match="holds no model" if place != other else reason):
            stats_of(stored, place)
    plain = shutil.copytree(stored, tmp_path / "plain")
    (plain / LINK).unlink()
    stats, warnings = stats_of(plain, None)
    assert (stats["images"], stats["classes"][0], warnings) == (False, "class 0", [])


def test_a_network_that_was_replaced_encodes_nothing(
    stored: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    network = shutil.copytree(model.path, tmp_path / "network")
    opened = open_stored(stored, network, "cpu", pytest.fail)
    with opened.index:
        shutil.rmtree(network)
        config = TrainConfig(epochs=1, augment="none", seed=1)
        train(digits.sample(100), model.net.architecture, config, network)
        assert opened.encode is not None
        with pytest.raises(CheckpointError, match="was replaced by another: start again with the one of this index"):
            opened.encode(lambda size: np.zeros((3, size, size), np.uint8))


def stats_of(index: Path, model: Path | None) -> tuple[dict[str, object], list[str]]:
    """Open an index as the command does; return its answer to `/stats`, and the warnings."""
    warnings: list[str] = []
    opened = open_stored(index, model, "cpu", warnings.append)
    with opened.index:
        service = ExploreService(opened.index, opened.class_names, opened.encode)
        return client_of(service).get("/stats").json(), warnings


def test_a_milvus_collection_is_served(stored: Path, model: Checkpoint, tmp_path: Path) -> None:
    database = str(tmp_path / "milvus.db")
    with FaissIndex.open(stored) as index, MilvusIndex.create(database, index.config, collection="digits") as copy:
        copy.add(index.get(index.ids()[:200]))
        expected = copy.search(index.get([5]), k=3).ids[0].tolist()
    with (
        running("digits", "--uri", database, "--model", model.path, cwd=tmp_path) as address,
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        stats = client.get("/stats").json()
        assert (stats["records"], stats["images"], stats["classes"][3]) == (200, True, "3")
        answer = client.post("/search", json={"id": 5, "k": 3, "explain": True, "compare": True}).json()
        assert [int(hit["record"]["id"]) for hit in answer["hits"]] == expected
        assert answer["compared"]["same"]
        assert answer["done"]["codes"] is None
        assert answer["partitions"][0]["kept_records"] is None
        assert client.get("/partitions").json()["total"] == stats["partitions"]
        assert len(client.get("/records").json()["records"]) > 10


def test_other_machines_need_a_token(stored: Path) -> None:
    printed = semcut("explore", stored, "--host", "0.0.0.0", cwd=stored.parent, status=2).stderr
    assert "--host 0.0.0.0 accepts requests from other machines: give a --token" in " ".join(printed.split())
    arguments = (stored, "--host", "0.0.0.0", "--name", "photos.example")
    with running(*arguments, cwd=stored.parent, SEMCUT_TOKEN="secret") as address:
        address = re.sub(r"//.*:", "//127.0.0.1:", address)
        assert httpx2.get(f"{address}stats").status_code == 401
        header = {"authorization": "Bearer secret"}
        assert httpx2.get(f"{address}stats", headers=header).status_code == 200
        assert httpx2.get(f"{address}stats", headers={**header, "host": "photos.example"}).status_code == 200
        assert httpx2.get(f"{address}stats", headers={**header, "host": "other.example"}).status_code == 400


def test_a_path_without_an_index_and_a_port_in_use_are_errors(stored: Path, tmp_path: Path) -> None:
    assert "is not a semcut index" in semcut("explore", tmp_path, cwd=tmp_path, status=1).stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        printed = semcut("explore", stored, "--port", port, "--no-browser", cwd=tmp_path, status=1).stderr
    assert f"127.0.0.1 port {port} cannot be used" in " ".join(printed.split())


@pytest.mark.parametrize("arguments", [["--port", "-1"], ["--port", "70000"], ["--port", "web"]])
def test_an_invalid_port_is_refused(arguments: list[str], stored: Path) -> None:
    semcut("explore", stored, *arguments, cwd=stored.parent, status=2)


def test_the_service_loads_without_torch():
    """Loading torch takes seconds, and only a query that is an image needs torch."""
    printed = subprocess.run(
        [sys.executable, "-c", "import sys, semcut.connector.explore.service; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout == "False\n"
