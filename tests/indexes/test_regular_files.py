"""Only regular files of a bounded size are opened, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from semcut.indexes import regular_files
from semcut.indexes.regular_files import open_binary, open_descriptor, read_bytes, read_json, stored_bytes


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def directory(path):
    path.mkdir()


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [fifo, device, directory, listening])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, monkeypatch, make, follow, flags):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "file")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"not a regular file|symbolic link"):
        open_descriptor(tmp_path / "file", flags, follow=follow)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_is_followed_only_where_a_user_names_files(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_bytes(tmp_path / "link", 7, follow=True) == b"content"
    with pytest.raises(OSError, match="symbolic link"):
        read_bytes(tmp_path / "link", 7)


def test_sizes_are_bounded_before_anything_is_read(tmp_path):
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 1 << 40)
    for read in (lambda: read_bytes(file, 100), lambda: read_json(file), lambda: open_binary(file, max_bytes=1 << 39)):
        with pytest.raises(OSError, match="has 1,099,511,627,776 bytes, expected at most"):
            read()


def test_a_hole_counts_as_little(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(range(1, 251)) * 1000)
    assert stored_bytes(file.stat()) == 250_000
    os.truncate(file, 1 << 40)
    assert stored_bytes(file.stat()) < 1 << 27


def test_a_large_file_that_is_a_hole_is_refused(tmp_path, monkeypatch):
    hole, file = tmp_path / "hole", tmp_path / "file"
    for size in (17 << 20, 1 << 40):
        with hole.open("wb") as stream:
            stream.write(b"begins as it should")
            stream.truncate(size)
        with pytest.raises(OSError, match=f"most of its {size:,} bytes are holes"):
            read_bytes(hole, 1 << 41)
    file.write_bytes(b"content" + bytes(1000))
    monkeypatch.setattr(regular_files, "_ANY_BYTES", 100)
    found = file.stat()  # with no block, as if they were compressed, or not allocated yet
    uncounted = SimpleNamespace(st_mode=found.st_mode, st_size=found.st_size, st_blocks=0)
    monkeypatch.setattr(os, "fstat", lambda descriptor: uncounted)
    assert read_bytes(file, 2000) == b"content" + bytes(1000)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b'{"a": 1} {}'])
def test_what_is_not_json_is_a_value_error(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_json(tmp_path / "file")
    (tmp_path / "file").write_text('{"a": [1]}')
    assert read_json(tmp_path / "file") == {"a": [1]}


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "file", 10)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system has no /proc")
def test_a_file_that_states_no_size_is_bounded_as_well():
    assert os.stat("/proc/self/status").st_size == 0
    whole = read_bytes("/proc/self/status", 1 << 20)
    assert len(whole) > 100
    for read in (read_bytes, read_json):
        with pytest.raises(OSError, match="has more than 100 bytes"):
            read("/proc/self/status", 100)
    for use in (lambda stream: stream.read(), list):
        with (
            open_binary("/proc/self/status", max_bytes=100) as stream,
            pytest.raises(OSError, match="has more than 100 bytes"),
        ):
            use(stream)


def test_a_file_that_grows_is_bounded_where_it_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(10_000))
    assert read_bytes(file, 10_000) == bytes(10_000)
    with open_binary(file, max_bytes=10_000) as stream:
        assert stream.read(1) == b"\0"
        with file.open("ab") as more:
            more.write(bytes(1 << 20))
        with pytest.raises(OSError, match="has more than 10,000 bytes"):
            stream.read()
        stream.seek(10)
        with pytest.raises(OSError, match="has more than 10,000 bytes"):
            list(iter(lambda: stream.read(999), b""))
