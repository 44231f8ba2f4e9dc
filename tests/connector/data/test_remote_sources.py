"""Sources that have an address: fetched once, used as any other, and never opened because of what an index says."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from semcut.connector.daemon_threads import DaemonThreads
from semcut.connector.data import remote_sources, sources
from semcut.connector.data.remote_sources import is_remote
from semcut.connector.explore.thumbnails import thumbnail
from semcut.connector.retrieval.model_link import LINK
from semcut.indexes.errors import DataError, MissingDependencyError, SemcutWarning
from tests.command import semcut
from tests.connector.data.packed import Row, picture, write_parquet, write_shard

TRAIN = ("--image-size", 16, "--epochs", 1, "--dim", 8)
KINDS = {f"{label}/{number}.png": picture(number) for number in range(6) for label in (("cat", "dog")[number % 2],)}
"""Six pictures in folders of classes."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """The store at memory://, without files."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def put(store: MemoryFileSystem, folder: str, files: dict[str, bytes]) -> None:
    store.pipe({f"/{folder}/{name}": content for name, content in files.items()})


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def contents(source: str) -> list[tuple[str, bytes]]:
    images = sources.load(source)
    labels = [images.classes[label] for label in images.labels.tolist()]
    return sorted((label, Path(file).read_bytes()) for label, file in zip(labels, images.files, strict=True))


def test_every_kind_of_source_can_have_an_address(store: MemoryFileSystem, tmp_path: Path) -> None:
    expected = sorted((name.split("/")[0], content) for name, content in KINDS.items())
    rows = [Row(content, (name.split("/")[0],)) for name, content in KINDS.items()]
    put(store, "photos", KINDS)
    put(store, "deep/er", {f"train/{name}": content for name, content in KINDS.items()})
    put(store, "a", {
        "photos.tar.gz": tar({f"train/{name}": content for name, content in KINDS.items()}),
        "photos.zip": zipped(KINDS),
        "photos.parquet": write_parquet(tmp_path / "a.parquet", rows).read_bytes(),
        "shard.tar": write_shard(tmp_path / "a.tar", rows).read_bytes(),
    })  # fmt: skip
    put(store, "parts", {f"{part}.parquet": store.cat("/a/photos.parquet") for part in range(2)})
    lines = "".join(json.dumps({"path": name, "label": name.split("/")[0]}) + "\n" for name in KINDS)
    put(store, "photos", {"list.jsonl": lines.encode()})
    put(store, "photos", {"list.csv": b"path,label\n" + b"".join(f"{n},{n[:3]}\n".encode() for n in KINDS)})
    with pytest.raises(DataError, match=r"the pattern names two files 'shard\.tar': give one folder"):
        sources.load("memory://a/shar{d,d}.tar")
    for name in (
        "deep/er/train", "deep/er/train/", "a/photos.tar.gz/train", "a/photos.zip", "a/photos.parquet", "a/shard.tar",
        "a/*.parquet", "photos/list.jsonl", "photos/list.csv",
    ):  # fmt: skip
        assert contents(f"memory://{name}") == expected, name
    for name in ("parts", "parts/*.parquet", "parts/{0..1}.parquet"):
        assert contents(f"memory://{name}") == sorted(expected * 2)
    assert len(sources.list_images("memory://photos").files) == 8
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.png").write_bytes(picture(0))
    os.mkfifo(tmp_path / "photos" / "cat" / "b.png")
    with pytest.warns(SemcutWarning, match=r"left out 1 entries that are no files, the first is 'cat/b\.png'"):
        assert len(sources.list_images(f"file://{tmp_path}/photos").files) == 1
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    with pytest.warns(SemcutWarning, match="left out 1 entries that are no files, the first is 'again'"):
        assert sources.list_images(f"file://{tmp_path}/loop").files == []


def test_files_are_fetched_once_and_again_when_one_has_changed(store: MemoryFileSystem, cache: Path) -> None:
    put(store, "photos", KINDS)
    first = sources.load("memory://photos")
    assert sources.load("memory://photos").files == first.files
    assert len(list(cache.iterdir())) == 1
    put(store, "photos", {"cat/new.png": picture(9)})
    second = sources.load("memory://photos")
    assert len(second) == 7
    assert second.roots != first.roots


def test_a_time_of_access_fetches_nothing_again(
    store: MemoryFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "photos", KINDS)
    facts: dict[str, Any] = {"time": 1, "accessTime": 1, "ETag": "a"}
    listed = MemoryFileSystem.ls

    def with_facts(system: MemoryFileSystem, path: str, **more: Any) -> Any:
        found = listed(system, path, **more)
        return [{**one, **facts} if isinstance(one, dict) else one for one in found]

    monkeypatch.setattr(MemoryFileSystem, "ls", with_facts)
    first = sources.load("memory://photos")
    facts |= {"time": 2, "accessTime": 2}
    assert sources.load("memory://photos").files == first.files
    assert len(list(cache.iterdir())) == 1
    facts["ETag"] = "b"
    assert sources.load("memory://photos").roots != first.roots


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("memory://none", "memory://none does not exist: give the address of a folder, an archive, a list, Parquet"),
        ("memory://photos/none", "does not exist"),
        ("memory://photos/none.tar/train", "does not exist"),
        ("memory://photos/none.csv", "does not exist"),
        ("memory://photos/*.parquet", "does not exist"),
        ("memory://photos/{0..3}.tar", "does not exist"),
        ("memory://photos/cat/0.png", "is no folder, and its name is not that of an archive, a list or a Parquet file"),
        ("memory://photos/{0..999999}.tar", "names more than 100,000 files"),
        ("zzz://photos", "cannot fetch zzz://photos: Protocol not known: zzz"),
        ("simplecache::memory://photos", "leads through another address or a cache"),
        ("zip://a.png::memory://photos.zip", "leads through another address or a cache"),
        ("reference://photos", "leads through another address or a cache"),
        ("memory://photos/cat.tar", "cannot unpack .*: it is neither a folder nor a tar or zip archive"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(source: str, reason: str, store: MemoryFileSystem, cache: Path) -> None:
    put(store, "photos", {"cat/0.png": picture(0), "cat.tar": b"x" * 2000})
    with pytest.raises(DataError, match=reason):
        sources.load(source)


def test_fsspec_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from semcut.indexes import errors

    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="fsspec not installed, needed to read images from an address: "):
        sources.load("memory://photos")


def test_a_folder_of_this_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory:").mkdir()
    (tmp_path / "memory:" / "photos").mkdir()
    assert is_remote("memory://photos")
    monkeypatch.chdir(tmp_path)
    assert not is_remote("memory://photos")
    assert not any(map(is_remote, ("torchvision:CIFAR10/train", "digits/train", "/a://b", "a.tar//b", "")))


class Hostile(MemoryFileSystem):
    """A store that answers with names that it should not."""

    protocol = "hostile"
    folder, name = "/photos", "0.png"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("hostile://", "memory://"))

    def walk(self, path: str, *args: object, **more: object) -> Iterator[tuple[str, dict, dict]]:
        yield path, {}, {}
        yield self.folder, {}, {self.name: {"name": "/photos/cat/0.png", "size": 1, "type": "file"}}


@pytest.mark.parametrize(
    ("folder", "name", "reason"),
    [
        ("/photos", "../x.png", r"'\.\./x\.png' would be written outside of the folder"),
        ("/photos/..", "x.png", "would be written outside of the folder"),
        ("/other", "x.png", "the folder '/other' is not in '/photos'"),
        ("/photos" + "/a" * 40, "x.png", "is too long: expected at most 2,048 bytes and 32 folders"),
        ("/photos", "a\0b", "would be written outside of the folder"),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(
    folder: str, name: str, reason: str, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "photos", {"cat/0.png": picture(0)})
    fsspec.register_implementation("hostile", Hostile, clobber=True)
    monkeypatch.setattr(Hostile, "folder", folder)
    monkeypatch.setattr(Hostile, "name", name)
    with pytest.raises(DataError, match=f"^cannot fetch hostile://photos: .*{reason}"):
        sources.list_images("hostile://photos")
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "cat/../../secret.png"])
def test_a_list_that_is_fetched_names_no_files_elsewhere(path: str, store: MemoryFileSystem) -> None:
    put(store, "photos", {"cat/0.png": picture(0), "list.csv": f"path,label\ncat/0.png,a\n{path},b\n".encode()})
    put(store, "", {"secret.png": picture(1)})
    with pytest.raises(DataError, match=f"cannot fetch .*'{re.escape(path)}' would be written outside of the folder"):
        sources.list_images("memory://photos/list.csv")


def test_files_of_a_list_that_are_missing_are_skipped(store: MemoryFileSystem) -> None:
    lines = b"path,label\ncat/0.png,a\nnone.png,b\ncat,b\n,b\nlist.csv,b\n"
    put(store, "photos", {"cat/0.png": picture(0), "list.csv": lines})
    found = sources.list_images("memory://photos/list.csv")
    assert [os.path.basename(file) for file in found.files] == ["0.png", "list.csv"]
    assert [reason for _, reason in found.skipped] == [
        "No such file or directory", "it is not a regular file", "it has no path",
    ]  # fmt: skip


def test_sizes_are_bounded(store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    put(store, "photos", {"cat/0.png": picture(0), "cat/large.png": b"x" * 5000, "list.csv": b"path\n" + b"x\n" * 3000})
    monkeypatch.setattr(remote_sources, "MAX_BYTES", 4000)
    with pytest.warns(SemcutWarning, match=r"left out 2 files of more than 4,000 bytes, the first is 'cat/large\.png'"):
        assert len(sources.list_images("memory://photos").files) == 1
    monkeypatch.setattr(remote_sources, "MAX_LIST_BYTES", 4000)
    with pytest.raises(DataError, match="the list has more than 4,000 bytes: divide it"):
        sources.list_images("memory://photos/list.csv")
    usage = remote_sources.shutil.disk_usage

    class Small:
        """A disk with little room."""

        free = 9000

    monkeypatch.setattr(remote_sources.shutil, "disk_usage", lambda place: Small)
    put(store, "photos", {"cat/2.png": picture(2)})
    with pytest.raises(DataError, match=r"cannot fetch memory://photos: it unpacks to more than the 0\.0 GB that"):
        sources.list_images("memory://photos")
    monkeypatch.setattr(remote_sources.shutil, "disk_usage", usage)
    assert len(list(cache.iterdir())) == 1


def test_few_files_of_a_list_are_asked_for_at_once(store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(DaemonThreads):
        futures: ClassVar[list[Future[Any]]] = []
        most = 0

        def submit(self, call: Callable[[], Any]) -> Future[Any]:
            self.futures.append(super().submit(call))
            Counted.most = max(self.most, sum(not future.done() for future in self.futures))
            return self.futures[-1]

    monkeypatch.setattr(remote_sources, "DaemonThreads", Counted)
    monkeypatch.setattr(remote_sources, "_AT_ONCE", 5)
    names = "".join(f"{number}.png\n" for number in range(100))
    put(store, "photos", {"7.png": picture(0), "list.csv": f"path\n{names}".encode()})
    assert len(sources.list_images("memory://photos/list.csv").files) == 1
    assert len(Counted.futures) == 101
    assert Counted.most <= 5


class Stalled(MemoryFileSystem):
    """A store that answers nothing, and whose user then presses Ctrl-C."""

    protocol = "stalled"
    end: ClassVar[Event]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("stalled://", "memory://"))

    def info(self, path: str, **more: Any) -> Any:
        return super().info(path, **more) if path != "/photos/late.png" else self.wait()

    def open(self, path: str, *more: Any, **settings: Any) -> Any:
        return super().open(path, *more, **settings) if path.endswith("csv") else self.wait()

    def wait(self) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        self.end.wait(30)
        return io.BytesIO(b"late")


@pytest.mark.parametrize("source", ["stalled://photos", "stalled://photos/list.csv"])
def test_ctrl_c_does_not_wait_for_a_store(
    source: str, store: MemoryFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "photos", {"cat/0.png": picture(0)} | ({"list.csv": b"path\nlate.png\n"} if "csv" in source else {}))
    fsspec.register_implementation("stalled", Stalled, clobber=True)
    end = Event()
    monkeypatch.setattr(Stalled, "end", end, raising=False)
    try:
        with pytest.raises(KeyboardInterrupt):
            sources.list_images(source)
        assert not end.is_set()
    finally:
        end.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "fetch"]:
        assert thread.daemon
        thread.join(30)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_all_commands(store: MemoryFileSystem, tmp_path: Path) -> None:
    put(store, "photos", KINDS)
    put(store, "more", {"cat/0.png": picture(0), "cat/9.png": picture(9)})
    semcut("train", "memory://photos", "--out", "model", *TRAIN, cwd=tmp_path)
    indexed = semcut("index", "memory://photos", "--model", "model", "--out", "index", "--json", cwd=tmp_path)
    assert json.loads(indexed.stdout)["added"] == 6
    added = json.loads(semcut("add", "index", "memory://more", "--json", cwd=tmp_path).stdout)
    assert (added["added"], added["known"]) == (1, 1)
    measured = json.loads(semcut("evaluate", "index", "memory://photos", "-t", 0, "--json", cwd=tmp_path).stdout)
    assert measured["overall"]["queries"] == 6
    assert semcut("sync", "index", "memory://photos", cwd=tmp_path, status=1).stderr.count("\n") == 1
    store.store.clear()  # the store is not asked again
    synced = json.loads(semcut("sync", "index", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert synced["unchanged"] == 6


def test_an_address_in_an_index_is_never_opened(
    store: MemoryFileSystem, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "photos", KINDS)
    semcut("train", "memory://photos", "--out", "model", *TRAIN, cwd=tmp_path)
    semcut("index", "memory://photos", "--model", "model", "--out", "index", cwd=tmp_path)
    link = (tmp_path / "index" / LINK).read_text()
    (root,) = json.loads(link)["roots"]
    (tmp_path / "index" / LINK).write_text(link.replace(root, "memory://photos"))
    shutil.rmtree(cache)
    opened: list[object] = []
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **more: opened.append(path))
    monkeypatch.setattr(MemoryFileSystem, "_open", lambda self, path, *more, **settings: opened.append(path))
    refused = semcut("sync", "index", cwd=tmp_path, status=1)
    assert refused.stderr.count("\n") == 1
    searched = semcut("search", "index", "memory://photos/cat/0.png", cwd=tmp_path, status=1)
    assert "no such file" in searched.stderr
    assert thumbnail("memory://photos/cat/0.png", 16).missing == "no such file"
    assert opened == []
    assert not cache.exists()
