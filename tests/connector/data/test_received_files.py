"""FIFOs, devices, links and files without end, under every name that semcut reads: refused at once, in one sentence."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from semcut.connector.benchmark.datasets.array_files import Array, read_arrays
from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts
from semcut.connector.benchmark.measure.ground_truth import Truth
from semcut.connector.benchmark.measure.raw_results import load_arrays
from semcut.connector.data.images import MAX_BYTES, UnreadableImage, open_image, read_batches
from semcut.connector.models import pth_files
from semcut.connector.models.backbones import build_backbone
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.reproduce.network_measurements import Measurement
from semcut.connector.reproduce.results_page import keep_speed
from semcut.connector.retrieval.contact_sheet import Tile, contact_sheet
from semcut.connector.training.run_state import read_state
from semcut.indexes.errors import SemcutError
from semcut.indexes.kernels.kernel_cache import is_complete
from semcut.indexes.migration.journal import Journal
from tests.command import semcut


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def directory(path: Path) -> None:
    path.mkdir()


Make = Callable[[Path], None]
MADE = pytest.mark.parametrize("make", [fifo, device, endless, directory])

READERS: dict[str, Callable[[Path], Any]] = {
    "figures.safetensors": Measurement.load,
    "training.safetensors": lambda file: read_state(file, 1 << 20),
    "results.npz": lambda file: load_arrays(file, {}.get),
    "truth.npz": lambda file: Truth.load(file, 2, 3),
    "a.journal": Journal,
    "run.json": lambda file: keep_speed(file.parent / "out", file.parent),
    "dataset.json": lambda file: Dataset.open(file.parent),
    "weights.safetensors": lambda file: build_backbone("resnet18", 32, str(file)),
    "weights.pth": lambda file: build_backbone("resnet18", 32, str(file)),
}


@MADE
@pytest.mark.parametrize("name", [name for name in READERS if "weights" not in name])
def test_a_reader_refuses_what_is_not_an_ordinary_file(make: Make, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(SemcutError):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights_that_never_end_are_refused(name: str, tmp_path: Path) -> None:
    endless(tmp_path / name)
    with pytest.raises(SemcutError, match="expected at most"):
        READERS[name](tmp_path / name)


@MADE
def test_a_reader_that_does_without_the_file_does_not_wait_for_it(make: Make, tmp_path: Path) -> None:
    for name in ("complete", "dataset.json"):
        make(tmp_path / name)
    with pytest.raises(SemcutError, match=r"dataset\.json cannot be read"):
        DatasetFacts.read(tmp_path)
    assert not is_complete(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights_of_another_model_are_refused_before_their_numbers_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"x": torch.zeros(10)}
    if name == "weights.pth":
        torch.save(state, tmp_path / name)
    else:
        safetensors.torch.save_file(state, tmp_path / name)
    monkeypatch.setattr(safetensors.torch, "load", lambda _: pytest.fail("read"))
    monkeypatch.setattr(pth_files, "_tensor", lambda *_: pytest.fail("read"))
    with pytest.raises(SemcutError, match=r"does not hold weights of this network .* is missing"):
        READERS[name](tmp_path / name)


def test_weights_that_are_a_zip_bomb_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(10)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "weights.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(SemcutError, match="is compressed, which torch never writes"):
        READERS["weights.pth"](tmp_path / "weights.pth")


def test_a_journal_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other\n")
    (tmp_path / "a.journal").symlink_to(tmp_path / "other")
    with pytest.raises(SemcutError, match="symbolic link"):
        Journal(tmp_path / "a.journal")
    assert (tmp_path / "other").read_text() == "other\n"


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000 + b"\n",
        b'{"format": 1}\n{"last": 1e999, "records": 1, "crc": 1}\n',
        b'{"format": 1}\n{"last": NaN, "records": 1, "crc": 1}\n',
        b"3\n",
        b'["format"]\n',
        b"\xff\n",
    ],
)
def test_a_journal_of_something_else_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.journal").write_bytes(content)
    with pytest.raises(SemcutError, match="is no journal"):
        Journal(tmp_path / "a.journal")


@MADE
def test_what_is_not_an_image_file_is_skipped(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")  # of a user who links images into folders
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png", "d\0.png", "\ud800.png")]
    (batch,) = read_batches(files, 8, 8)
    assert batch.positions.tolist() == [1, 2]
    assert [reason for _, reason in batch.skipped] == [
        f"it has {1 << 42:,} bytes, expected at most {MAX_BYTES:,}" if make is endless else "it is not a regular file",
        "embedded null byte",
        "its name is not valid text",
    ]


@MADE
def test_the_image_of_a_hit_is_an_empty_tile(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "hit.png")
    tile = Tile(str(tmp_path / "hit.png"), None, ())
    query = Tile(Image.new("RGB", (9, 9)), None, ())
    assert contact_sheet([(query, [tile])]).getpixel((200, 60)) == (235, 235, 235)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    before = len(os.listdir("/proc/self/fd"))
    open_image(tmp_path / "a.png")
    for name in ("b.png", "missing.png", "."):
        with pytest.raises(UnreadableImage):
            open_image(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before


def arrays_of(path: Path, most: int = 1 << 20) -> dict[str, Any]:
    expected = {"a": Array("u1", ((0, 1 << 40),)), "b": Array("u1", ((0, 1 << 40),))}
    return read_arrays(path, expected.get, ["a"], most)


def test_arrays_that_claim_too_much_are_not_read(tmp_path: Path) -> None:
    """A header of an array of a terabyte, a pickled object, an entry that is no array, and a zip bomb."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40,)})
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object))
    for content, message in (
        (header.getvalue(), "more than 1,048,576 bytes"),
        (pickled.getvalue(), r"is object of shape \(1,\), expected uint8 of shape \(0 to"),
        (b"text", "magic string is not correct|EOF"),
    ):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", content)
        with pytest.raises(ValueError, match=message):
            arrays_of(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 19, np.uint8), b=np.zeros((1 << 19) + 1, np.uint8))
    with pytest.raises(ValueError, match="arrays have more than 1,048,576 bytes"):
        arrays_of(tmp_path / "bomb.npz")
    assert set(arrays_of(tmp_path / "bomb.npz", (1 << 20) + 1)) == {"a", "b"}


def test_an_archive_of_very_many_arrays_is_not_listed(tmp_path: Path) -> None:
    """Entries of 46 bytes, of which zipfile would make an object each, and a list whose stated size is 64 bits."""
    entries = 1 << 15
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, *[0] * 14)
    size = entries * len(entry)
    end = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, entries, entries, size, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, size, 1)
    plain = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a.npz").write_bytes(entry * entries + b"PK\x06\x06" + end + locator + plain)
    with pytest.raises(ValueError, match="the list of its arrays has more than 1,048,576 bytes"):
        arrays_of(tmp_path / "a.npz", 1 << 30)


def test_a_folder_of_all_kinds_of_files_is_indexed(tmp_path: Path, model: Checkpoint) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (9, 9)).save(photos / "a.png")
    for name, make in (("b.png", fifo), ("c.png", device), ("d.png", endless)):
        make(photos / name)
    done = semcut("index", photos, "--model", model.path, "--out", "index", cwd=tmp_path)
    assert "1 records, 3 files skipped" in done.stdout
    for name in "bcd":
        assert f"skipped {photos}/{name}.png: it " in done.stderr
    for name, make in (("connector.json", fifo), ("connector.json", endless), ("connector.json", device)):
        (tmp_path / "index" / name).unlink()
        make(tmp_path / "index" / name)
        done = semcut("search", "index", photos / "a.png", cwd=tmp_path, status=1)
        assert "does not record which network made it" in done.stderr
