"""A migration that is interrupted at any moment, by a signal or by a failing server, can be resumed and completed."""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexConfig,
    ServerError,
)
from semcut.indexes.errors import SemcutWarning
from semcut.indexes.migration.copy import Migration
from semcut.indexes.migration.journal import Journal
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection
from tests.command import SEMCUT, semcut
from tests.indexes.generate import classified
from tests.indexes.milvus.conftest import server_kind
from tests.indexes.milvus.migration.command import CONFIG, report_of


def test_a_copy_resumes_with_another_batch_size(source, collection, uri, tmp_path):
    """Interrupted in a large batch, a copy resumes with small batches and leaves no additional rows."""
    with FaissIndex.open(source) as reader, MilvusIndex.create(uri, CONFIG, collection=collection) as target:
        migration = Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 150)
        for calls in (7, 9):
            with pytest.MonkeyPatch.context() as patch:
                call, made = ServerConnection.call, []

                def fails(self, name, /, *args, call=call, made=made, calls=calls, **kwargs):
                    made.append(name)
                    if len(made) == calls:
                        raise ServerError("the server has crashed")
                    return call(self, name, *args, **kwargs)

                patch.setattr(ServerConnection, "call", fails)
                with pytest.raises(ServerError, match="has crashed"):
                    migration.copy()
            migration = Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 20)
        assert migration.copy().differences == []
        assert migration.verify().verified is True
        key = target._schema.record_key
        rows = sum(
            len(page[key]) for page in target._server.pages(target._schema.record_collection, key, f"{key} >= -1", [])
        )
        assert rows == len(target) == len(reader)


def test_an_interrupted_copy_is_called_unfinished_until_it_is_complete(source, collection, uri, tmp_path, monkeypatch):
    append, batches = Journal.append, []

    def interrupted(self: Journal, batch: Encodings) -> None:
        append(self, batch)
        batches.append(batch)
        if len(batches) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    command = ["migrate", source, collection, "--uri", uri, "--batch-size", 50]
    semcut(*command, cwd=tmp_path, status=130)
    with FaissIndex.open(source) as index:
        missing = f"collection {collection} is unfinished: it has 100 of {len(index)} records"
    for _ in range(2):
        with pytest.warns(SemcutWarning, match=missing), MilvusIndex.open(uri, collection=collection) as milvus:
            assert len(milvus) == 100
    semcut(*command, "--resume", cwd=tmp_path)
    with MilvusIndex.open(uri, collection=collection) as milvus, FaissIndex.open(source) as index:  # without a warning
        assert len(milvus) == len(index)


def killed_and_resumed(source: Path, collection: str, uri: str, tmp_path: Path, kills: int, batch: int) -> None:
    """Kill a copy at several moments, spread over the copy and at any point of a batch, and complete it."""
    rng = random.Random(kills)
    journal = tmp_path / f"{source.name}.{collection}.journal"
    command = [SEMCUT, "migrate", source, collection, "--uri", uri, "--resume", "--batch-size", str(batch)]
    with FaissIndex.open(source) as index:
        total = len(index)
    seen = 0
    for kill in range(kills):
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stderr=subprocess.PIPE)
        goal = min(total - batch, (kill + 1) * total // (kills + 1))
        while process.poll() is None and (Journal(journal).copied if journal.exists() else 0) < goal:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), said
        copied = Journal(journal).copied
        assert copied >= seen
        seen = copied
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", "--batch-size", batch, cwd=tmp_path)
    assert (report["verified"], report["differences"], report["records"]) == (True, [], total)
    assert report["resumed_at"] >= seen
    with MilvusIndex.open(uri, collection=collection, strong=True) as milvus, FaissIndex.open(source) as index:
        assert milvus.stats().records == len(milvus) == total
        np.testing.assert_array_equal(milvus.ids(), np.sort(index.ids()))
        rows = milvus._server.pages(
            milvus._schema.record_collection, milvus._schema.record_key, f"{milvus._schema.record_key} >= -1", []
        )
        assert sum(len(page[milvus._schema.record_key]) for page in rows) == total  # no row twice, no additional row


def test_killed_and_resumed(source, collection, uri, tmp_path):
    """The copy is complete, independent of the moments at which it was killed."""
    killed_and_resumed(source, collection, uri, tmp_path, 3, 40)


@pytest.mark.long
@pytest.mark.milvus
def test_a_large_copy_is_killed_twenty_times(milvus_server, tmp_path):
    """100,000 records, SIGKILL at 20 random moments, resumed each time: complete, no row twice, verified."""
    config = IndexConfig(classes=100, bits=64, dim=128)
    rng = np.random.default_rng(7)
    with FaissIndex.create(tmp_path / "large", config, durability="close") as index:
        for first in range(0, 100_000, 20_000):
            index.add(classified(rng, config, 20_000, first_id=first))
    name = f"migration_{secrets.token_hex(6)}"
    try:
        killed_and_resumed(tmp_path / "large", name, milvus_server.uri, tmp_path, 20, 2000)
    finally:
        MilvusIndex.drop(milvus_server.uri, collection=name, timeout=60)


@pytest.mark.milvus
def test_the_server_is_killed_in_the_middle(tmp_path, milvus_server):
    """One line and status 5; when the server is back, the copy resumes and completes."""
    config = IndexConfig(classes=20, bits=64, dim=32)
    with FaissIndex.create(tmp_path / "source", config) as index:
        index.add(classified(np.random.default_rng(3), config, 30_000))
    server = server_kind()(tmp_path / "server", binaries=milvus_server.directory)
    try:
        server.start()
        arguments = ["source", "copy", "--uri", server.uri, "--batch-size", "500", "--timeout", "5"]
        process = subprocess.Popen(
            [str(SEMCUT), "migrate", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        journal = tmp_path / "source.copy.journal"
        while process.poll() is None and not (journal.exists() and Journal(journal).copied >= 10_000):
            time.sleep(0.01)
        server.kill()
        started = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 5
        assert time.monotonic() - started < 15
        (line,) = said.splitlines()
        assert "did not answer within 5 s" in line
        assert "--resume" in line
        server.start()
        arguments[-1] = "120"
        report = report_of(*arguments, "--resume", "--verify", cwd=tmp_path)
        assert (report["verified"], report["differences"], report["records"]) == (True, [], 30_000)
        assert report["resumed_at"] >= 10_000
    finally:
        server.delete()


def test_interrupted_by_hand(source, collection, uri, tmp_path):
    """Ctrl-C: one line that says how to resume, status 130."""
    process = subprocess.Popen(
        [str(SEMCUT), "migrate", str(source), collection, "--uri", uri, "--batch-size", "1"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = tmp_path / f"source.{collection}.journal"
    while process.poll() is None and not (journal.exists() and Journal(journal).copied >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines() == ["semcut: interrupted: continue with --resume"]
    assert report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path)["verified"] is True


@pytest.mark.parametrize("uri", ["lite"], indirect=True)
def test_an_interrupted_copy_from_a_server_is_an_unfinished_index(source, collection, uri, tmp_path):
    report_of(source, collection, "--uri", uri, cwd=tmp_path)
    arguments = ["back", collection, "--uri", uri, "--reverse", "--batch-size", 50]
    with pytest.MonkeyPatch.context() as patch:
        call, made = FaissIndex.upsert, []

        def fails(self, batch):
            made.append(batch)
            if len(made) == 3:
                raise KeyboardInterrupt
            call(self, batch)

        patch.setattr(FaissIndex, "upsert", fails)
        semcut("migrate", *arguments, cwd=tmp_path, status=130)
    assert "back is unfinished: it has 100 of " in semcut("verify", "back", cwd=tmp_path, status=1).stdout
    report_of(*arguments, "--resume", cwd=tmp_path)
    assert semcut("verify", "back", cwd=tmp_path).stdout == "back is sound.\n"
