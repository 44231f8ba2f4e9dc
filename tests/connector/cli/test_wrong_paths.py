"""Every command is given every kind of wrong path, in place of each path that it takes.

It ends with one error, and changes nothing.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from semcut.connector.cli.app import app
from semcut.connector.cli.options import PathType
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from tests.command import semcut
from tests.connector.adoption import networks
from tests.thorough import THOROUGH

COMMANDS = (
    "info INDEX",
    "verify INDEX",
    "compact INDEX",
    "backup INDEX NEW",
    "average INDEX NEW",
    "restore INDEX NEW",
    "remove INDEX --id 0 --dry-run",
    "duplicates INDEX --page HTML",
    "export INDEX TABLE",
    "import RECORDS --out NEW",
    "train IMAGES --out NEW --image-size 16 --epochs 1 --start NETWORK --weights WEIGHTS",
    "index IMAGES --model NETWORK --out NEW",
    "adopt shufflenet_v2_x0_5 --weights TENSORS --vectors VECTORS --classes NAMES --image-size 32 --out NEW",
    "adopt GRAPH --images IMAGES --labelled IMAGES --classes NAMES --out NEW",
    "add INDEX PHOTOS --model NETWORK --dry-run",
    "sync INDEX DIRECTORY --model NETWORK --dry-run",
    "sync INDEX DIRECTORY --attributes LIST --dry-run",
    "sync INDEX DIRECTORY --reencode --model NETWORK --dry-run",
    "relocate INDEX --images DIRECTORY --model NETWORK",
    "relink INDEX --model NETWORK",
    "search INDEX IMAGE --model NETWORK --picture PICTURE --less-like IMAGE",
    "evaluate INDEX IMAGES --labels IMAGES --model NETWORK",
    "calibrate INDEX IMAGES --model NETWORK --miss 90%",
    "explore INDEX --model NETWORK --no-browser --port 0",
    "explore INDEX --images DIRECTORY --no-browser --port 0",
    "benchmark NEW --data INDEX INDEX --quick --methods nothing",
    "reproduce NEW NETWORK --data IMAGES --protocol cifar10 --speed NEW",
    "migrate INDEX --uri http://127.0.0.1:1 --timeout 0.1 --journal JOURNAL --report REPORT",
    "demo --out FOLDER",
)
RIGHT = {"INDEX": "index", "NETWORK": "network", "WEIGHTS": "network/model.safetensors", "IMAGES": "images",
         "IMAGE": "image.png", "NEW": "new", "PICTURE": "new.png", "TABLE": "new.parquet", "RECORDS": "records.npz",
         "HTML": "new.html",
         "GRAPH": "network.onnx", "TENSORS": "weights.safetensors", "VECTORS": "vectors.npy", "NAMES": "names.txt",
         "REPORT": "new.json", "JOURNAL": "new", "FOLDER": "new", "PHOTOS": "images", "LIST": "images.csv",
         "DIRECTORY": "images"}  # fmt: skip
WRONG = (
    "", "missing", "missing/folder", "empty folder", "empty file", "noise", "object.json", "loop", "dangling", "pipe",
    "socket", "index of folders", "index of links", "network of folders", "network of links", "image.png",
    "image.png/below", "images.tar", "images", "index", "network", "index/catalogue.sqlite", "network/model.json",
    "/dev/null", "/dev/full", "long" * 100, "not \udcff text", "~",
)  # fmt: skip
NEW = {"missing", "not \udcff text", "~"}
FILES = NEW | {"dangling", "empty file", "loop"}
FOLDERS = NEW | {"missing/folder", "empty folder"}
DIRECTORIES = {f"{of}{kind}" for of in ("index", "network") for kind in ("", " of folders", " of links")}
USABLE = {
    "NEW": FOLDERS,
    "FOLDER": FOLDERS | {"images", *DIRECTORIES},
    "PICTURE": FILES | {"missing/folder", "/dev/null"},
    "HTML": FILES | {"missing/folder", "/dev/null"},
    "REPORT": FILES | {"long" * 100, "pipe", "socket", "/dev/null", "/dev/full"},
    "JOURNAL": FILES | {"missing/folder"},
    "IMAGES": {"images.tar"},
    "PHOTOS": {"images.tar", "image.png", *DIRECTORIES},
    "DIRECTORY": {"empty folder", *DIRECTORIES},
}
"""Paths that are not wrong: a command creates a folder, and replaces a file."""


@pytest.fixture(scope="module")
def place(model: Checkpoint, stored: Path, digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with every kind of path, right and wrong."""
    place = tmp_path_factory.mktemp("paths")
    for name, source in (("index", stored), ("network", model.path)):
        shutil.copytree(source, place / name)
        for file in os.listdir(source):
            (place / f"{name} of folders" / file).mkdir(parents=True)
            (place / f"{name} of links").mkdir(exist_ok=True)
            (place / f"{name} of links" / file).symlink_to(place / name / file)
    for file in digits.files[::30]:
        (place / "images" / Path(file).parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / "images" / Path(file).parent.name)
    shutil.copy(digits.files[0], place / "image.png")
    (place / "images.csv").write_text("path,price\nimage.png,5\n")
    with tarfile.open(place / "images.tar", "w") as archive:
        archive.add(place / "images", "images")
    np.savez(place / "records.npz", probabilities=np.eye(2), codes=np.zeros((2, 4), np.uint8), features=np.eye(2))
    networks.write_onnx(place)
    networks.write_names(place)
    networks.write_weights(place)
    np.save(place / "vectors.npy", np.eye(len(networks.CLASSES), 1024, dtype=np.float32))
    (place / "empty folder").mkdir()
    (place / "empty file").touch()
    (place / "noise").write_bytes(bytes(range(256)) * 20)
    (place / "object.json").write_text("{}")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("missing")
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)  # since the path of a socket has to be short
        server.bind("socket")
    return place


def cases() -> Iterator[tuple[str, int]]:
    for command in COMMANDS:
        for position, word in enumerate(command.split()):
            if word in RIGHT:
                yield command, position


@pytest.mark.parametrize(("command", "position"), list(cases()))
def test_a_command_refuses_a_wrong_path(command: str, position: int, place: Path):
    words = command.split()
    wrong = [path for path in WRONG if path not in {RIGHT[words[position]]} | USABLE.get(words[position], set())]
    before = contents(place)
    for path in wrong if THOROUGH else wrong[position % 4 :: 4]:
        arguments = [RIGHT.get(word, word) for word in words]
        arguments[position] = path
        done = semcut(*arguments, cwd=place, status=None)
        assert done.returncode in (1, 2), (path, done.stdout)
        assert done.stderr.splitlines()[-1].startswith(("semcut: ", "Error: ", "skipped ")), (arguments, done.stderr)
        assert contents(place) == before, arguments


def contents(place: Path) -> dict[str, int]:
    """Return all paths, with the kind of each and the digest of what a file holds."""
    found = {}
    for folder, folders, files in os.walk(place):
        for path in (os.path.join(folder, name) for name in (*folders, *files)):
            kind = os.lstat(path).st_mode
            found[path] = zlib.crc32(Path(path).read_bytes()) if stat.S_ISREG(kind) else -kind
    return found


def test_all_paths_of_all_commands_are_tried():
    context = click.Context(app)
    for name in app.list_commands(context):
        tried = [command.split() for command in COMMANDS if command.startswith(f"{name} ")]
        for parameter in app.get_command(context, name).params:
            if isinstance(parameter.type, PathType):
                given = [
                    words for words in tried if isinstance(parameter, click.Argument) or parameter.opts[0] in words
                ]
                assert given, (name, parameter.name)
