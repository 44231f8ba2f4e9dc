"""A file is replaced in one step: its previous content stays until the new content is complete and on the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semcut.indexes.storage.atomic_write import replacing, replacing_named, sync_to_disk, write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path) -> Path:
    """A file with content, alone in its directory."""
    (tmp_path / "settings.json").write_text("previous")
    return tmp_path / "settings.json"


def test_the_new_content_replaces_the_previous_when_the_block_ends(file):
    with replacing(file) as scratch:
        scratch.write_text("new")
        assert file.read_text() == "previous"
        assert scratch.parent == file.parent  # so that the rename stays in one file system
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_does_not_exist_is_created(tmp_path):
    with replacing(tmp_path / "new") as scratch:
        scratch.write_bytes(b"\0\1")
    assert (tmp_path / "new").read_bytes() == b"\0\1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_previous_content_and_no_scratch_file(file, error):
    def write_half() -> None:
        with replacing(file) as scratch:
            scratch.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert file.read_text() == "previous"
    assert list(file.parent.iterdir()) == [file]


def test_a_block_that_writes_nothing_leaves_the_previous_content(file):
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_text() == "previous"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_previous_content_and_no_scratch_file(file, monkeypatch, call):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="Input/output error"), replacing(file) as scratch:
            scratch.write_text("new")
    assert file.read_text() == "previous"
    assert list(file.parent.iterdir()) == [file]


def test_the_content_is_synced_before_the_rename_and_the_directory_after_it(file, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def spy_fsync(handle):
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def spy_replace(source, target):
        calls.append(("replace", target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    with replacing(file) as scratch:
        scratch.write_text("new")
    assert calls == [("fsync", scratch), ("replace", file), ("fsync", file.parent)]


@pytest.mark.parametrize("moment", ["writing", "fsync", "replace"])
def test_a_process_killed_before_the_rename_leaves_the_previous_content(file, moment):
    script = """
import os, pathlib, signal, sys
from semcut.indexes.storage.atomic_write import replacing

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

with replacing(pathlib.Path(sys.argv[1])) as scratch:
    scratch.write_text("new")
    if sys.argv[2] == "writing":
        die()
    setattr(os, sys.argv[2], die)
"""
    done = subprocess.run([sys.executable, "-c", script, file, moment], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert file.read_text() == "previous"
    (scratch,) = set(file.parent.iterdir()) - {file}
    assert scratch.read_text() == "new"
    with replacing(file) as other:  # the scratch file of the killed process is not in the way
        other.write_text("newer")
    assert file.read_text() == "newer"


def test_json_is_written_in_one_step(file):
    write_json(file, {"text": "ü", "numbers": [1, 2.5, None]})
    assert json.loads(file.read_text()) == {"text": "ü", "numbers": [1, 2.5, None]}
    assert file.read_text().endswith("}\n")
    with pytest.raises(TypeError):
        write_json(file, {"not JSON": object()})
    assert json.loads(file.read_text())["numbers"] == [1, 2.5, None]
    assert list(file.parent.iterdir()) == [file]


def test_a_missing_file_cannot_be_synced(tmp_path):
    handles = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        sync_to_disk(tmp_path / "missing")
    assert os.listdir("/proc/self/fd") == handles


def test_a_failed_sync_leaves_no_handle_open(file, monkeypatch):
    def refuse(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Input/output error"):
        sync_to_disk(file)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_a_user_names_is_replaced_whole_and_a_device_is_not_replaced(tmp_path):
    file, link = tmp_path / "report.json", tmp_path / "link"
    file.write_text("before")
    link.symlink_to(file)

    def half() -> None:
        with replacing_named(link) as target:
            target.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        half()
    assert file.read_text() == "before"
    with replacing_named(link) as target:
        target.write_text("after")
    assert link.is_symlink()
    assert file.read_text() == "after"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "report.json"]
    with replacing_named(Path("/dev/null")) as target:
        assert target == Path("/dev/null")


def test_a_pipe_gets_what_is_written_and_one_without_a_reader_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(OSError, match="it is a pipe that nobody reads from"), replacing_named(path):
            pass
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with replacing_named(pipe) as target:
        assert target == pipe
        target.write_text("one ")
        with target.open("a") as stream:
            stream.write("two")
    assert os.read(reader, 100) == b"one two"
    assert os.read(reader, 100) == b""
    os.close(reader)
    assert pipe.is_fifo()
